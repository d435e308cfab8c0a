"""What the channels mean: encoding and deciding are inverse, regions are BraTS's, and both heads attack alike."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import ConvertToMultiChannelBasedOnBratsClasses
from torch import Tensor, nn

from medadv.attack.losses import LOSSES
from medadv.attack.presets import ifgsm, mifgsm
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018, BRATS_2023, BRATS_2024, MSD_TASK01, LabelScheme
from medadv.victims.head import Sigmoid, Softmax, Voxels, make_head
from medadv.victims.normalize import Unchanged
from medadv.victims.segmentation import Segmenter

LESION = LabelScheme("lesion", {"background": 0, "lesion": 1}, {"L": ("lesion",)})
ODD = LabelScheme("odd", {"kidney": 2, "background": 7, "cyst": 31}, {"all": ("kidney", "cyst"), "C": ("cyst",)})
SCHEMES = [BRATS_2018, BRATS_2023, MSD_TASK01, LESION, ODD]


def labels(scheme: LabelScheme, seed: int, shape: tuple[int, ...] = (2, 5, 4)) -> Tensor:
    numbers = torch.tensor(sorted(scheme.numbers.values()))
    return numbers[torch.randint(0, len(numbers), shape, generator=torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize("scheme", [*SCHEMES, BRATS_2024], ids=lambda s: s.name)
@given(seed=st.integers(0, 2**31))
def test_softmax_encodes_and_decides_back(scheme: LabelScheme, seed: int) -> None:
    head, truth = Softmax(scheme), labels(scheme, seed)
    classes = head.encode(truth)
    logits = nn.functional.one_hot(classes, len(head.channels)).movedim(-1, 1).double()
    assert torch.equal(head.decide(logits), truth)
    for place in ((0, 0, 0), (1, 4, 3)):
        tissue = head.channels[int(classes[place])]
        assert scheme.numbers[tissue] == truth[place]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
@given(seed=st.integers(0, 2**31))
def test_sigmoid_encodes_and_decides_back(scheme: LabelScheme, seed: int) -> None:
    head, truth = make_head("sigmoid", scheme), labels(scheme, seed)
    answer = head.encode(truth) * 2.0 - 1
    assert torch.equal(head.decide(head.logits(answer)), truth)


def test_the_order_of_the_channels_is_free() -> None:
    truth = labels(BRATS_2018, 0)
    for regions in (("ET", "WT", "TC"), ("TC", "ET", "WT")):
        head = Sigmoid(BRATS_2018, regions)
        assert torch.equal(head.decide(head.logits(head.encode(truth) * 2.0 - 1)), truth)


def test_regions_are_those_of_brats() -> None:
    """MONAI's conversion is for BraTS 2018 (1 necrosis, 2 oedema, 4 enhancing); its order is TC, WT, ET."""
    truth = labels(BRATS_2018, 3, (1, 6, 6, 6))
    reference = ConvertToMultiChannelBasedOnBratsClasses()(truth)
    assert torch.equal(Sigmoid(BRATS_2018, ("TC", "WT", "ET")).encode(truth)[0].bool(), torch.as_tensor(reference))


def test_masks_that_do_not_nest_are_painted_in_the_schemes_order() -> None:
    """All eight answers to WT, TC, ET: ET is painted over TC over WT, whether or not the larger region agrees."""
    answers = torch.tensor(list(product([-1.0, 1.0], repeat=3))).T[None]
    head = Sigmoid(BRATS_2018, ("WT", "TC", "ET"))
    assert head.decide(head.logits(answers)).tolist() == [[0, 4, 1, 4, 2, 4, 1, 4]]


def test_even_odds_are_outside() -> None:
    head = Sigmoid(LESION, ("L",))
    assert head.decide(head.logits(torch.tensor([[[0.0, 1e-30, -1e-30]]]))).tolist() == [[0, 1, 0]]


def test_region_logits_are_nothing_and_the_answer() -> None:
    answer = torch.randn(2, 3, 5)
    logits = make_head("sigmoid", BRATS_2018).logits(answer)
    assert torch.equal(logits, torch.stack([torch.zeros(2, 3, 5), answer], 1))
    torch.testing.assert_close(logits.softmax(1)[:, 1], answer.sigmoid())


def twins(seed: int = 0) -> tuple[Segmenter, Segmenter]:
    """One function of the image as a softmax over two classes and as a sigmoid over one region."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 2, 3, padding=1)).double()

    class Difference(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 1:] - x[:, :1]

    two = Segmenter(body, Softmax(LESION), ("a", "b"), Unchanged())
    one = Segmenter(nn.Sequential(body, Difference()), Sigmoid(LESION, ("L",)), ("a", "b"), Unchanged())
    return two, one


@pytest.mark.parametrize("loss", LOSSES)
def test_both_heads_give_the_same_loss_and_gradient(loss: str) -> None:
    x, truth = torch.randn(2, 2, 6, 5, dtype=torch.float64), labels(LESION, 1, (2, 6, 5))
    values, gradients = [], []
    for victim in twins():
        leaf = x.clone().requires_grad_()
        value = LOSSES[loss](victim(leaf), victim.targets(truth))
        gradients.append(torch.autograd.grad(value.sum(), leaf)[0])
        values.append(value.detach())
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("attack", [ifgsm("0.2 sigma", steps=4), mifgsm("0.2 sigma", steps=4)])
def test_both_heads_are_attacked_alike(attack: object) -> None:
    x, truth = torch.randn(2, 2, 6, 5, dtype=torch.float64), labels(LESION, 1, (2, 6, 5))
    two, one = (attack(victim, x, truth).x for victim in twins())
    torch.testing.assert_close(two, one, rtol=0, atol=1e-12)


def test_targets_of_regions_and_parts() -> None:
    truth = labels(BRATS_2018, 5)
    for head in (Softmax(BRATS_2018), make_head("sigmoid", BRATS_2018)):
        targets = Voxels.of(head, truth)
        core = (truth == 1) | (truth == 4)
        expected = core if not head.grouped else core[:, None].expand(-1, 3, -1, -1)
        assert torch.equal(targets.region("TC"), expected)
        part = targets.take(torch.tensor([1]))
        assert torch.equal(part.labels, targets.labels[1:])
        assert torch.equal(part.truth, truth[1:])
        assert torch.equal(part.region("TC"), expected[1:])


ABLE: list[tuple[LabelScheme, tuple[str, ...], set[str]]] = [
    (BRATS_2018, ("WT", "TC", "ET"), {"WT", "TC", "ET", "oedema", "necrosis", "enhancing", "background"}),
    (BRATS_2018, ("ET", "TC", "WT"), {"WT", "TC", "ET", "oedema", "necrosis", "enhancing", "background"}),
    (BRATS_2018, ("WT",), {"WT", "background"}),
    (BRATS_2018, ("WT", "TC"), {"WT", "TC", "oedema", "background"}),
    (BRATS_2018, ("WT", "ET"), {"WT", "ET", "enhancing", "background"}),
    (BRATS_2018, ("ET",), {"ET", "enhancing"}),
    (BRATS_2024, ("WT", "TC", "ET"), {"WT", "TC", "ET", "oedema", "necrosis", "enhancing"}),  # no head sees the cavity
    (ODD, ("all", "C"), {"all", "C", "kidney", "cyst", "background"}),
    (LESION, ("L",), {"L", "lesion", "background"}),
]


@pytest.mark.parametrize(("scheme", "regions", "able"), ABLE)
def test_a_region_head_knows_what_it_can_tell(scheme: LabelScheme, regions: tuple[str, ...], able: set[str]) -> None:
    head = Sigmoid(scheme, regions)
    assert {name for name in (*scheme.regions, *scheme.numbers) if head.answers(name)} == able
    assert all(Softmax(scheme).answers(name) for name in (*scheme.regions, *scheme.numbers))
    for each in (head, Softmax(scheme)):
        with pytest.raises(ConfigError, match="no region and no tissue"):
            each.answers("brain")


def test_a_region_that_is_painted_over_cannot_be_told() -> None:
    """Declared the wrong way round, the organ hides its cyst."""
    hidden = LabelScheme("hidden", ODD.numbers, {"C": ("cyst",), "all": ("kidney", "cyst")})
    head = Sigmoid(hidden, ("C", "all"))
    assert [head.answers(name) for name in ("C", "all", "kidney")] == [False, True, False]


@pytest.mark.parametrize(("scheme", "regions", "able"), ABLE)
@given(seed=st.integers(0, 2**31))
def test_what_it_can_tell_a_flawless_network_scores_one(
    scheme: LabelScheme, regions: tuple[str, ...], able: set[str], seed: int
) -> None:
    head, truth = Sigmoid(scheme, regions), labels(scheme, seed)
    decided = head.decide(head.logits(head.encode(truth) * 2.0 - 1))
    for name in able:
        assert torch.equal(scheme.mask(decided, name), scheme.mask(truth, name)), name


@pytest.mark.parametrize("regions", [("WT", "brain"), ("WT", "oedema"), ()])
def test_channels_that_are_no_regions_are_refused(regions: tuple[str, ...]) -> None:
    """A tissue among the channels would be predicted and then never be painted."""
    with pytest.raises(ConfigError, match="one channel a region") as refusal:
        Sigmoid(BRATS_2018, regions)
    assert "WT" in refusal.value.details["expected"]


def test_a_scheme_without_regions_has_no_sigmoid_head() -> None:
    with pytest.raises(ConfigError, match="one channel a region"):
        make_head("sigmoid", LabelScheme("bare", {"background": 0, "liver": 1}))
