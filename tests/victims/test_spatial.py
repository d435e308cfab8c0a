"""Turned axes, crops and padding: MONAI's voxels, MONAI's way back, and a gradient that is the adjoint."""

from __future__ import annotations

from dataclasses import asdict

import monai.transforms as mt
import nibabel as nib
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from runtime_types import unchecked
from torch import Tensor
from victims.grids import adjoint_gap, affine_of, same_as_monai

from medadv.errors import ConfigError, VictimError
from medadv.victims.checkpoint import Preprocessing
from medadv.victims.crop import CenterSpatialCrop, CropForeground, CropNonzero, DivisiblePad, Pad
from medadv.victims.preprocess import Step, Way
from medadv.victims.resample import Resample
from medadv.victims.spacing import Spacing
from medadv.victims.spatial import Orientation, Transpose

SHAPE = (7, 5, 6)
TURNED = affine_of((1.2, 0.8, 3.0), "PIR", 0.2)

EVERY: list[Step] = [
    Orientation("LPS"),
    Transpose((2, 0, 1)),
    Spacing((1.0, 1.5, 2.0)),
    Spacing((2.0, 0.5, 2.0), mode="nearest", scale_extent=True),
    Resample((1.0, 1.0, 2.0), order=1),
    CropForeground(margin=(1, 3, 0), k_divisible=4),
    CropNonzero(),
    Pad((9, 4, 8), method="end", value=-1.5),
    DivisiblePad(4),
    CenterSpatialCrop((3, 0, 4)),
]


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A blob of noise around nothing, two modalities."""
    x = torch.zeros(1, 2, *shape, dtype=dtype)
    inner = tuple(slice(1 + (i == 0), n - 1) for i, n in enumerate(shape))
    x[(..., *inner)] = torch.randn(
        1, 2, *(len(range(*s.indices(n))) for s, n in zip(inner, shape, strict=True)), dtype=dtype
    )
    return x


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.name)
def test_onwards_and_back_are_linear_and_the_gradient_is_the_adjoint(step: Step) -> None:
    x = image(*SHAPE, dtype=torch.float64)
    placed = step.prepare(x, TURNED)
    assert adjoint_gap(placed, torch.randn_like(x)) < 1e-9
    outside = torch.tensor([0.0, -30.0], dtype=torch.float64)
    answer = torch.randn_like(placed(x))
    assert adjoint_gap(lambda a: placed.back(a, outside), answer) < 1e-9
    assert placed.back(answer, outside).shape == x.shape


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.name)
def test_a_step_is_a_setting_in_json(step: Step) -> None:
    steps = TypeAdapter(Preprocessing)
    again = steps.validate_json(steps.dump_json(step))
    assert again == step
    assert steps.validate_python(asdict(step)) == step
    with pytest.raises(ValueError, match="surprise"):
        steps.validate_python(asdict(step) | {"surprise": 1})


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.name)
def test_the_image_is_not_written_to(step: Step) -> None:
    x = image(*SHAPE)
    before = x.clone()
    placed = step.prepare(x, TURNED)
    placed.back(placed(x), torch.zeros(2))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("step", "affine"),
    [
        (Orientation("RAS"), affine_of()),
        (Transpose((0, 1, 2)), None),
        (Spacing((1.0, 1.0, 1.0)), affine_of(turn="LPS")),
        (Spacing((None, -1.0, None)), affine_of((0.7, 2.0, 3.1))),
        (Resample((1.0, 1.0, 1.0)), affine_of()),
        (CropForeground(), None),
        (CropNonzero(), None),
        (Pad(2), None),
        (DivisiblePad(1), None),
        (CenterSpatialCrop(99), None),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_where_nothing_is_to_be_done_the_tensor_itself_comes_back(step: Step, affine: np.ndarray | None) -> None:
    x = torch.rand(1, 2, *SHAPE) + 1
    placed, truth = step.prepare(x, affine), torch.ones(1, *SHAPE, dtype=torch.long)
    assert placed(x) is x
    assert placed.back(x, torch.zeros(2)) is x
    assert placed.labels(truth) is truth
    assert placed.affine is affine or np.array_equal(placed.affine, affine)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIL"])
@pytest.mark.parametrize("turn", ["RAS", "LAS", "PIR", "SLA"])
@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_orientation_is_monais(axes: str, turn: str, angle: float) -> None:
    x, affine = image(*SHAPE), affine_of((1.0, 2.0, 0.5), turn, angle)
    placed = Orientation(axes).prepare(x, affine)
    same_as_monai(placed, mt.Orientation(axes, labels=None), x, affine)
    assert "".join(nib.aff2axcodes(placed.affine)) == axes
    truth = torch.randint(0, 4, (1, *SHAPE))
    assert torch.equal(placed.labels(truth)[0].float(), placed(truth[:, None].float())[0, 0])


@pytest.mark.filterwarnings("ignore:axcodes:UserWarning")  # MONAI's own inverse names three axes
@pytest.mark.parametrize("turn", ["RAS", "ALS", "PRI"])
def test_orientation_of_a_picture_is_monais(turn: str) -> None:
    x, affine = image(7, 5), affine_of(turn=turn)
    same_as_monai(Orientation("LA").prepare(x, affine), mt.Orientation("LA", labels=None), x, affine)


def test_a_plane_that_cannot_be_turned_is_refused() -> None:
    with pytest.raises(VictimError, match="cannot turn"):
        Orientation("RA").prepare(image(7, 5), affine_of(turn="SAR"))


def test_a_transposition_is_numpys_and_moves_no_voxel_in_space() -> None:
    x = image(*SHAPE)
    placed = Transpose((2, 0, 1)).prepare(x, TURNED)
    np.testing.assert_array_equal(placed(x)[0].numpy(), x[0].numpy().transpose(0, 3, 1, 2))
    assert torch.equal(placed.back(placed(x), torch.zeros(2)), x)
    old, new = np.array([4, 2, 3, 1]), np.array([3, 4, 2, 1])
    np.testing.assert_allclose(TURNED @ old, placed.affine @ new)


@pytest.mark.parametrize("shape", [SHAPE, (9, 6)])
@pytest.mark.parametrize("margin", [0, 2])
@pytest.mark.parametrize("smaller", [True, False])
@pytest.mark.parametrize("k", [1, 4])
def test_the_foreground_is_monais(shape: tuple[int, ...], margin: int, smaller: bool, k: int) -> None:
    x = image(*shape)
    step = CropForeground(margin, allow_smaller=smaller, k_divisible=k)
    theirs = mt.CropForeground(margin=margin, allow_smaller=smaller, k_divisible=k)
    same_as_monai(step.prepare(x, TURNED), theirs, x, TURNED)


def test_one_modality_may_decide_and_above_another_value() -> None:
    x = torch.full((1, 2, *SHAPE), -900.0)
    x[0, 1, 2:4, 3, 1:5] = -20
    x[0, 0, 0] = 5
    placed = CropForeground(channels=(1,), above=-100.0).prepare(x, TURNED)
    theirs = mt.CropForeground(select_fn=lambda v: v > -100, channel_indices=[1], allow_smaller=False)
    same_as_monai(placed, theirs, x, TURNED)
    assert placed(x).shape == (1, 2, 2, 1, 4)


@pytest.mark.parametrize("size", [(8, 7, 6), (10, -1, 3), 9])
@pytest.mark.parametrize("method", ["symmetric", "end"])
def test_padding_is_monais(size: int | tuple[int, ...], method: str) -> None:
    x = image(*SHAPE)
    theirs = mt.SpatialPad((size,) * 3 if isinstance(size, int) else size, method=method, value=-2.5)
    same_as_monai(Pad(size, method, -2.5).prepare(x, TURNED), theirs, x, TURNED)


@pytest.mark.parametrize("k", [4, (3, 0, 16)])
@pytest.mark.parametrize("method", ["symmetric", "end"])
def test_divisible_padding_is_monais(k: int | tuple[int, ...], method: str) -> None:
    x = image(*SHAPE)
    same_as_monai(
        DivisiblePad(k, method, 1.0).prepare(x, TURNED), mt.DivisiblePad(k, method=method, value=1.0), x, TURNED
    )


@pytest.mark.parametrize("size", [(3, 4, 5), (1, 9, -1), 4])
def test_the_crop_to_the_middle_is_monais(size: int | tuple[int, ...]) -> None:
    x = image(*SHAPE)
    theirs = mt.CenterSpatialCrop((size,) * 3 if isinstance(size, int) else size)
    same_as_monai(CenterSpatialCrop(size).prepare(x, TURNED), theirs, x, TURNED)


def test_what_was_cut_away_gets_the_answer_that_says_background() -> None:
    x = image(*SHAPE)
    placed = CropNonzero().prepare(x, None)
    outside, answer = torch.tensor([0.0, -30.0, 2.0]), torch.randn(1, 3, 4, 3, 4)
    home = placed.back(answer, outside)
    assert torch.equal(home[..., 2:6, 1:4, 1:5], answer)
    away = torch.ones(SHAPE, dtype=torch.bool)
    away[2:6, 1:4, 1:5] = False
    assert torch.equal(home[0][:, away], outside[:, None].expand(3, int(away.sum())))
    truth = torch.arange(7 * 5 * 6).view(1, *SHAPE)
    assert torch.equal(placed.labels(truth), truth[:, 2:6, 1:4, 1:5])


def test_the_box_of_what_is_not_zero_is_nnunets() -> None:
    nnunet = pytest.importorskip("nnunetv2.preprocessing.cropping.cropping")
    x = torch.zeros(1, 2, 8, 9, 7)
    x[0, 0, 2, 3:5, 4], x[0, 1, 1:3, 6, 2:4] = -1.0, 2.0
    placed = CropNonzero().prepare(x, None)
    cropped, _, _ = nnunet.crop_to_nonzero(x[0].numpy())
    np.testing.assert_array_equal(placed(x)[0].numpy(), cropped)
    blank = torch.zeros(1, 1, 3, 3, 3)
    assert CropNonzero().prepare(blank, None)(blank) is blank


def test_a_batch_is_cropped_to_one_box_or_not_at_all() -> None:
    x = torch.cat([image(*SHAPE), image(*SHAPE)])
    assert CropNonzero().prepare(x, None)(x).shape == (2, 2, 4, 3, 4)
    x[1, 0, 0, 0, 0] = 1
    for step in (CropNonzero(), CropForeground()):
        with pytest.raises(VictimError, match="different boxes") as refusal:
            step.prepare(x, None)
        assert "one case at a time" in refusal.value.details["try"]


def test_an_image_without_foreground_is_refused() -> None:
    with pytest.raises(VictimError, match="finds nothing"):
        CropForeground().prepare(-torch.ones(1, 2, *SHAPE), None)


@pytest.mark.parametrize("step", [Orientation(), Spacing(), Resample((1.0, 1.0, 1.0))], ids=lambda step: step.name)
def test_without_an_affine_the_advice_is_to_tell_it(step: Step) -> None:
    with pytest.raises(VictimError, match=step.name) as refusal:
        step.prepare(image(*SHAPE), None)
    assert refusal.value.details["try"] == "tell the victim: victim.at(volume.affine)"
    with pytest.raises(VictimError, match="cannot be meant"):
        step.prepare(image(*SHAPE), np.zeros((4, 4)))


@pytest.mark.parametrize("step", [Transpose((1, 0)), Pad((4, 4)), DivisiblePad((2, 2)), CenterSpatialCrop((3, 3))])
def test_another_number_of_axes_is_refused(step: Step) -> None:
    with pytest.raises(VictimError, match="another number of axes"):
        step.prepare(image(*SHAPE), None)
    with pytest.raises(VictimError, match="does not have"):
        CropForeground(channels=(2,)).prepare(image(*SHAPE), None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Orientation("RAX"),
        lambda: Orientation("RLS"),
        lambda: Transpose((0, 0, 1)),
        lambda: Transpose(3),
        lambda: Pad("abc"),
        lambda: Pad((2.5, 3, 4)),
        lambda: Pad(()),
        lambda: CropForeground(margin=-1),
        lambda: CropForeground(k_divisible=0),
        lambda: Spacing(()),
        lambda: Spacing("1"),
        lambda: Spacing((float("nan"), 1)),
        lambda: Resample((1, 1, 1), order=7),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: object) -> None:
    with unchecked(), pytest.raises(ConfigError):
        make()


def test_a_list_becomes_a_tuple() -> None:
    with unchecked():
        assert Pad([4, 4, 4]) == Pad((4, 4, 4))
        assert Spacing([1, None]) == Spacing((1.0, None))


def test_a_chain_knows_at_each_step_where_voxels_lie() -> None:
    """The same point in space, in stored voxels and in the network's."""
    x = image(9, 11, 8)
    steps = [Orientation("LPS"), Spacing((1.0, 1.0, 1.0)), CropForeground(), DivisiblePad(8), Transpose((2, 1, 0))]
    affine = affine_of((2.0, 2.0, 2.0), "ARI")
    way = Way.prepared(steps, x, affine)
    lines = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in x.shape[2:]), indexing="ij")
    seen = way(torch.stack(lines)[None].clamp(min=1e-3))
    last = way.steps[-1].affine
    assert last is not None
    place = (6, 5, 4)
    old = seen[0, :, place[0], place[1], place[2]].double().numpy()
    np.testing.assert_allclose((affine @ [*old, 1])[:3], (last @ [*place, 1])[:3], atol=1e-3)


def test_each_modality_is_padded_by_a_value_of_its_own() -> None:
    """The mean colour, which is nothing after it is subtracted; only the picture's own pixels have a gradient."""
    x = image(5, 4).requires_grad_()
    placed = Pad((6, 7), method="end", value=(123.68, -4.5)).prepare(x, None)
    padded = placed(x)
    assert padded.shape == (1, 2, 6, 7)
    assert torch.equal(padded[..., :5, :4], x)
    around = torch.ones(6, 7, dtype=torch.bool)
    around[:5, :4] = False
    assert torch.equal(padded[0][:, around].amin(1), torch.tensor([123.68, -4.5]))
    assert torch.equal(padded[0][:, around].amax(1), torch.tensor([123.68, -4.5]))
    assert torch.equal(torch.autograd.grad(padded.sum(), x)[0], torch.ones_like(x))
    with unchecked():
        assert Pad(3, value=[1.0, 2.0]) == Pad(3, value=(1.0, 2.0))
    with pytest.raises(VictimError, match="other modalities"):
        Pad(6, value=(1.0, 2.0, 3.0)).prepare(x, None)
