"""The whole way from stored voxels to a label map: its gradient, its answers, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from runtime_types import unchecked
from torch import Tensor, nn

from medadv.attack.rng import Rng
from medadv.attack.victim import Passes, Victim
from medadv.errors import ConfigError, VictimError
from medadv.labels import BRATS_2018, BRATS_2023, BRATS_2024, LabelScheme
from medadv.victims.head import Head, Sigmoid, Softmax
from medadv.victims.normalize import Unchanged, ZScore
from medadv.victims.segmentation import Segmenter, weights_digest
from medadv.victims.window import SlidingWindow, WholeVolume

HEADS = [Softmax(BRATS_2018), Sigmoid(BRATS_2018, ("WT", "TC", "ET"))]


def segmenter(dimensions: int = 2, head: Head = HEADS[0], **settings: object) -> Segmenter:
    torch.manual_seed(2)
    conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
    network = nn.Sequential(conv(2, 4, 3, padding=1), nn.GELU(), conv(4, len(head.channels), 3, padding=1))
    return Segmenter(network.double().eval(), head, ("t1", "flair"), **settings)


def stored(*shape: int) -> Tensor:
    """Stored voxels: offset, on different scales, with a background of zeros."""
    x = torch.randn(1, 2, *shape, dtype=torch.float64) + 4
    x *= torch.tensor([1.0, 300.0], dtype=torch.float64).view(1, 2, *[1] * len(shape))
    return torch.where(torch.rand(1, 2, *shape) < 0.3, 0.0, x)


def loss(logits: Tensor) -> Tensor:
    weight = torch.linspace(-1.0, 2.0, logits.numel(), dtype=logits.dtype).view_as(logits)
    return (weight * logits.tanh()).sum() + (logits[:, 1] * logits[:, 0].sin()).sum() + logits[:, 1].square().sum()


@pytest.mark.parametrize("head", HEADS, ids=["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("shape", "inference"),
    [
        ((5, 4), WholeVolume(multiple=4)),
        ((7, 5), SlidingWindow((4, 4), overlap=0.5)),
        ((3, 6), SlidingWindow((4, 4), overlap=0.25, blend="constant", batch=2)),
        ((4, 5, 3), SlidingWindow((3, 3, 4), overlap=0.5)),
    ],
)
def test_the_gradient_reaches_the_stored_voxel(shape: tuple[int, ...], inference: object, head: Head) -> None:
    """Through head, windows, blend and the statistics of the whole volume: finite differences in every voxel."""
    victim, x = segmenter(len(shape), head, inference=inference), stored(*shape)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(victim(leaf)), leaf)
    scale = (1.0, 300.0)
    for place in (x != 0).nonzero():
        h = 1e-6 * scale[place[1]]
        moved = torch.zeros_like(x)
        moved[tuple(place)] = h
        slope = (loss(victim(x + moved)) - loss(victim(x - moved))).item() / (2 * h)
        assert found[tuple(place)].item() * scale[place[1]] == pytest.approx(
            slope * scale[place[1]], rel=1e-5, abs=1e-6
        )


@pytest.mark.parametrize("head", HEADS, ids=["softmax", "sigmoid"])
def test_it_is_a_victim(head: Head) -> None:
    victim, x = segmenter(head=head), stored(6, 5)
    assert isinstance(victim, Victim)
    assert victim.take(torch.tensor([0])) is victim
    assert torch.equal(victim.prepare(x, Rng.seeded(0, 1))(x), victim(x))
    assert victim(x).shape[1:] == ((4, 6, 5) if not head.grouped else (2, 3, 6, 5))
    assert list(victim.modules()) == [victim.network]
    assert torch.equal(victim.predict(x), head.decide(victim(x)))
    assert set(victim.predict(x).unique().tolist()) <= {0, 1, 2, 4}


def test_costs_are_those_of_the_inference() -> None:
    assert (segmenter().answer_cost, segmenter().gradient_cost) == (Passes(1, 0), Passes(1, 1))
    windowed = segmenter(inference=SlidingWindow((4, 4)))
    assert (windowed.answer_cost, windowed.gradient_cost) == (Passes(1, 0), Passes(2, 1))
    assert Passes(1, 2) + Passes(3, 4) == Passes(4, 6)


def test_the_scale_of_the_scanner_does_not_matter() -> None:
    """z-scores do not notice a scale: neither answers nor, in units of the scale, gradients change."""
    victim, x = segmenter(), stored(6, 5)
    large = x * 1e5
    torch.testing.assert_close(victim(large), victim(x), rtol=1e-9, atol=1e-9)
    slopes = []
    for scan in (x, large):
        leaf = scan.clone().requires_grad_()
        slopes.append(torch.autograd.grad(loss(victim(leaf)), leaf)[0])
    torch.testing.assert_close(slopes[1][x != 0] * 1e5, slopes[0][x != 0], rtol=1e-7, atol=1e-7)


def test_other_modalities_are_refused() -> None:
    for x in (torch.ones(1, 3, 6, 5, dtype=torch.float64), stored(6, 5)[0][None].transpose(1, 2)):
        with pytest.raises(VictimError, match="another number of modalities") as refusal:
            segmenter()(x)
        assert "2: t1, flair" in refusal.value.details["expected"]


def test_double_precision_for_a_single_precision_network_is_refused() -> None:
    victim, x = segmenter(), stored(6, 5)
    victim.network.float()
    with pytest.raises(VictimError, match="different precisions") as refusal:
        victim(x)
    assert "torch.float64 on cpu, a network in torch.float32 on cpu" in refusal.value.details["got"]
    assert "x.float()" in refusal.value.details["try"]
    victim(x.float())


@pytest.mark.parametrize("inference", [WholeVolume(), SlidingWindow((4, 4))])
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, "meta"])
def test_a_network_of_another_precision_or_device_is_refused_naming_both(inference: object, kind: object) -> None:
    victim = segmenter(inference=inference)
    victim = replace(victim, network=nn.Sequential(nn.PReLU(), victim.network).float().to(kind))
    with pytest.raises(VictimError, match="different precisions or on different devices") as refusal:
        victim(stored(6, 5).float())
    weight = victim.network[0].weight
    assert refusal.value.details["got"] == (
        f"an image in torch.float32 on cpu, a network in {weight.dtype} on {weight.device}"
    )


def test_a_network_that_sees_to_its_own_precision_is_let_be() -> None:
    class Inside(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x.double()).float()

    victim, x = segmenter(), stored(6, 5).float()
    inside = replace(victim, network=Inside(victim.network))
    torch.testing.assert_close(inside(x), victim(x.double()).float(), rtol=1e-3, atol=1e-3)


def test_what_else_a_network_raises_is_its_own() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("out of everything")

    with pytest.raises(RuntimeError, match="out of everything"):
        replace(segmenter(), network=Fails())(stored(6, 5))


def test_modalities_are_a_tuple_whatever_list_they_come_in() -> None:
    victim = segmenter()
    with unchecked():
        assert Segmenter(victim.network, victim.head, ["t1", "flair"]).modalities == victim.modalities
        assert replace(victim, modalities=["flair"]).modalities == ("flair",)
        with pytest.raises(ConfigError, match="list of names") as refusal:
            Segmenter(victim.network, victim.head, "t1")
        assert "('t1',)" in refusal.value.details["try"]
        with pytest.raises(ConfigError, match="list of names"):
            Segmenter(victim.network, victim.head, 2)


@pytest.mark.parametrize("head", ["softmax", None, BRATS_2018])
def test_a_head_that_is_none_is_advice(head: object) -> None:
    with unchecked(), pytest.raises(ConfigError, match="what its channels mean") as refusal:
        Segmenter(nn.Identity(), head, ("t1",))
    assert "Softmax(scheme)" in refusal.value.details["expected"]


def test_data_that_the_victim_was_not_made_for_are_refused() -> None:
    victim = segmenter()
    victim.check_fit(("t1", "flair"), BRATS_2018)
    victim.check_fit(["t1", "flair"], BRATS_2023)  # the same tissues in other numbers are translated
    turned = LabelScheme("turned", BRATS_2018.numbers, {r: tuple(reversed(t)) for r, t in BRATS_2018.regions.items()})
    victim.check_fit(("t1", "flair"), turned)  # an order is no meaning
    victim.check_fit(("t1", "flair"), LabelScheme("bare", BRATS_2018.numbers))
    for modalities in (("flair", "t1"), ("t1",), ("t1", "t2"), ("t1", "flair", "t2")):
        with pytest.raises(ConfigError, match="other modalities, or for another order"):
            victim.check_fit(modalities, BRATS_2018)
    with pytest.raises(ConfigError, match="other tissues than the data"):
        victim.check_fit(("t1", "flair"), BRATS_2024)
    other = LabelScheme("other", BRATS_2018.numbers, {"TC": ("oedema", "enhancing")})
    with pytest.raises(ConfigError, match="region") as refusal:
        victim.check_fit(("t1", "flair"), other)
    assert "TC" in str(refusal.value)


def test_another_head_than_the_networks_is_refused() -> None:
    mixed = replace(segmenter(), head=HEADS[1])
    with pytest.raises(VictimError, match="another number of channels") as refusal:
        mixed(stored(6, 5))
    assert "3: WT, TC, ET" in refusal.value.details["expected"]
    assert refusal.value.details["got"] == 4


def test_truth_in_other_numbers_is_refused() -> None:
    truth = torch.tensor([[0, 1, 2, 3]])  # 3 is enhancing tumour in BraTS 2023, and nothing in BraTS 2018
    for head in HEADS:
        with pytest.raises(VictimError, match="does not know") as refusal:
            segmenter(head=head).targets(truth)
        assert refusal.value.details["got"] == [3]
        assert "translate" in refusal.value.details["try"]


def test_the_digest_knows_every_weight_and_buffer() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    digests = {weights_digest(network)}
    assert weights_digest(network) in digests
    for tensor in network.state_dict().values():
        before = tensor.clone()
        tensor.flatten()[-1:].add_(1)
        digests.add(weights_digest(network))
        tensor.copy_(before)
    assert len(digests) == 1 + len(network.state_dict())
    assert len({weights_digest(network), weights_digest(network.double())}) == 2


def test_preprocessing_names_all_that_is_not_a_weight() -> None:
    base = segmenter()
    others = [
        replace(base, modalities=("flair", "t1")),
        replace(base, preprocess=Unchanged()),
        replace(base, preprocess=ZScore(nonzero=False)),
        replace(base, inference=WholeVolume(8)),
        replace(base, inference=SlidingWindow((4, 4))),
        replace(base, inference=SlidingWindow((4, 4), blend="constant")),
        replace(base, inference=SlidingWindow((4, 4), overlap=0.25)),
        replace(base, head=HEADS[1]),
        replace(base, head=Softmax(replace(BRATS_2018, regions={}))),
    ]
    told = [str(victim.preprocessing()) for victim in (base, *others)]
    assert len(set(told)) == len(told)
    assert told[0] == str(segmenter().preprocessing())


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, list], ids=["array", "tensor", "lists"])
def test_a_place_is_understood_in_every_kind_of_array(kind: object) -> None:
    rows = [[2.0, 0.0, 0.0, -9.0], [0.0, 1.0, 0.0, 4.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 1.0]]
    placed = segmenter().at(kind(rows))  # type: ignore[operator]
    assert placed.affine is not None
    assert placed.affine.dtype == np.float64
    assert placed.affine.tolist() == rows
    assert placed.at(None).affine is None


@pytest.mark.parametrize("affine", [np.eye(3), [[1, 0], [0]], "RAS", [["a"] * 4] * 4, 1.0], ids=repr)
def test_what_is_no_place_is_refused(affine: object) -> None:
    with unchecked(), pytest.raises(ConfigError, match="4 × 4 matrix") as refusal:
        segmenter().at(affine)  # type: ignore[arg-type]
    assert "volume.affine" in refusal.value.details["try"]


def test_a_modality_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="two channels") as refusal:
        Segmenter(nn.Identity(), HEADS[0], ("t1", "t1", "t2", "flair"))
    assert refusal.value.details["expected"] == "t1 once"
