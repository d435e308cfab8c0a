"""A bundle's ``postprocessing``: MONAI's own transforms, and what they tell about the network's answer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    FillHolesd,
    Invertd,
    KeepLargestConnectedComponentd,
    Lambdad,
    MapLabelValued,
    MapTransform,
    RemoveSmallObjectsd,
    SaveImaged,
)
from torch import Tensor

from medadv.errors import ConfigError, VictimError
from medadv.labels import BACKGROUND, BRATS_2018
from medadv.victims.formats.bundle.answer import Activation, Painting
from medadv.victims.formats.bundle.config import Component, Config
from medadv.victims.formats.bundle.inverse import Answers
from medadv.victims.formats.bundle.steps import spelled
from medadv.victims.head import Head

Data = dict[Hashable, Any]
Transform = Callable[[Data], Data]

# The class, the arguments that it is given, and those that are understood with these values alone.
_TABLE: dict[str, tuple[type[MapTransform], tuple[str, ...], Mapping[str, tuple[Any, ...]]]] = {
    "Activationsd": (Activationsd, ("sigmoid", "softmax"), {"other": (None,)}),
    "AsDiscreted": (AsDiscreted, ("argmax", "threshold", "to_onehot"), {"rounding": (None,)}),
    "FillHolesd": (FillHolesd, ("applied_labels", "connectivity"), {}),
    "KeepLargestConnectedComponentd": (
        KeepLargestConnectedComponentd,
        ("applied_labels", "is_onehot", "independent", "connectivity", "num_components"),
        {},
    ),
    "RemoveSmallObjectsd": (
        RemoveSmallObjectsd,
        ("min_size", "connectivity", "independent_channels"),
        {"by_measure": (False,)},
    ),
}
_WITH_SKIMAGE = ("KeepLargestConnectedComponentd", "RemoveSmallObjectsd")
_PASSED_OVER = ("SaveImaged", "EnsureTyped")
_INVERSION = ("transform", "orig_keys", "meta_keys", "orig_meta_keys", "meta_key_postfix", "to_tensor", "device")


@dataclass(frozen=True, eq=False)
class Painter:
    """The step that paints numbers over masks, on the prediction of this key."""

    key: str
    painting: Painting

    def __call__(self, data: Data) -> Data:
        """MONAI's ``Lambdad``, of a painting that was read and not run."""
        return {**data, self.key: self.painting(data[self.key])}


@dataclass(frozen=True, eq=False)
class Postprocessing:
    """What happens to the network's answer.

    Attributes:
        transforms: in order, without those that write files.
        key: the prediction's.
    """

    transforms: tuple[Transform, ...]
    key: str

    @property
    def activation(self) -> Activation:
        """Softmax or sigmoid, as the transforms say together.

        Raises:
            VictimError: they contradict each other, do not decide, or decide elsewhere than at even odds.
        """
        decided = [t for t in self.transforms if isinstance(t, AsDiscreted)]
        steps = [type(t).__name__ for t in self.transforms if isinstance(t, Activationsd | AsDiscreted)]
        applied = [t for t in self.transforms if isinstance(t, Activationsd)]
        sigmoid, softmax = any(any(t.sigmoid) for t in applied), any(any(t.softmax) for t in applied)
        argmax = any(any(t.argmax) for t in decided)
        thresholds = {threshold for t in decided for threshold in t.threshold if threshold is not None}
        ordered = steps == sorted(steps) and len(applied) <= 1 and not any(any(t.other) for t in applied)
        if ordered and argmax and not sigmoid and not thresholds:
            return "softmax"
        if ordered and sigmoid and not softmax and not argmax and thresholds == {0.5}:
            return "sigmoid"
        raise VictimError(
            "the bundle's postprocessing does not say how its answers are decided, or says it in two ways",
            got={"sigmoid": sigmoid, "softmax": softmax, "argmax": argmax, "threshold": sorted(thresholds)},
            expected="Activationsd(sigmoid) and AsDiscreted(threshold 0.5), or AsDiscreted(argmax)",
            cause="softmax or sigmoid is declared, never guessed",
        )

    @property
    def inversion(self) -> Invertd | None:
        """The step that undoes the preprocessing's changes of the grid."""
        return next((t for t in self.transforms if isinstance(t, Invertd)), None)

    @property
    def by_nearest(self) -> bool:
        """Whether answers go back to the stored grid by their nearest neighbour."""
        return self.inversion is not None and all(self.inversion.nearest_interp)

    @property
    def inverted(self) -> Answers:
        """What goes back to the stored grid: probabilities, if the activation comes first, or logits."""
        kinds = [type(t) for t in self.transforms if isinstance(t, Activationsd | Invertd)]
        return self.activation if kinds[:1] == [Activationsd] else "logits"

    @property
    def painters(self) -> tuple[Transform, ...]:
        """The steps after the decision that give voxels other numbers."""
        place = [i for i, t in enumerate(self.transforms) if isinstance(t, AsDiscreted)]
        later = self.transforms[place[-1] + 1 :] if place else ()
        return tuple(t for t in later if isinstance(t, Painter | Lambdad | MapLabelValued))

    def glioma(self, regions: Sequence[str]) -> dict[str, int]:
        """The number of each tissue of a glioma, where regions in this order are painted; else nothing."""
        if not self.painters or set(regions) != set(BRATS_2018.regions):
            return {}
        tissues = (BACKGROUND, "oedema", "necrosis", "enhancing")
        masks = [[float(tissue in BRATS_2018.regions[region]) for tissue in tissues] for region in regions]
        numbers = [int(number) for number in self._painted(torch.tensor(masks))]
        return dict(zip(tissues, numbers, strict=True)) if len(set(numbers)) == len(tissues) else {}

    def numbers(self, head: Head) -> dict[int, int]:
        """The bundle's painted number → the head's, asked of a flawless answer a tissue; empty: nothing is painted.

        Raises:
            VictimError: tissues that the channels tell apart are painted alike.
        """
        if not self.painters:
            return {}
        truth = head.scheme.stored(torch.arange(len(head.scheme.tissues)))
        answer = head.encode(truth[None])[0]
        if not head.grouped:
            answer = torch.nn.functional.one_hot(answer).T
        decided = head.decide(_as_logits(answer[None].float(), head))[0]
        table: dict[int, int] = {}
        for number, own in zip(self._painted(answer.float()), decided.tolist(), strict=True):
            if table.setdefault(int(number), own) != own:
                raise VictimError(
                    "the bundle's postprocessing paints tissues alike that its channels tell apart",
                    got=f"the label number {int(number)} for both {own} and {table[int(number)]} of {head.scheme.name}",
                    advice="remove the step that paints, or declare the regions that are left",
                )
        return table

    def _painted(self, answer: Tensor) -> list[float]:
        """The numbers that flawless answers ``(k, n)`` are given."""
        data: Data = {self.key: answer[..., None, None]}
        decide = [t for t in self.transforms if isinstance(t, AsDiscreted)]
        transforms: list[Transform] = [*decide, *self.painters]
        for transform in transforms:
            data = transform(data)
        painted = torch.as_tensor(data[self.key])
        if painted.numel() != answer.shape[1]:
            raise ConfigError("the bundle's postprocessing paints no label map", got=tuple(painted.shape))
        return [float(number) for number in painted.flatten()]


def _as_logits(answer: Tensor, head: Head) -> Tensor:
    return head.logits((answer - 0.5) * 2)


def postprocessing(config: Config, image: str, key: str, before: Compose) -> tuple[Postprocessing, list[Any]]:
    """The steps of ``postprocessing`` on the prediction of this key, and what they are, as JSON.

    Args:
        config: the bundle's configuration.
        image, key: what the configuration calls image and prediction.
        before: the preprocessing that ``Invertd`` undoes.

    Raises:
        VictimError: a transform or an argument that is not understood, named by its key.
    """
    transforms: list[Transform] = []
    described: list[Any] = []
    for own in config.components("postprocessing"):
        name = spelled(own.name)
        if name in _PASSED_OVER:
            continue
        if own("keys") not in (key, [key]):
            raise own.refused("keys", repr(key))
        if name == "Lambdad":
            transforms.append(Painter(key, _painting(own)))
            described.append({"transform": name, "func": config.raw(f"{own.key}.func")})
        elif name == "Invertd":
            transforms.append(_inversion(own, image, key, before))
            described.append({"transform": name, "nearest_interp": own.flag("nearest_interp", True)})
        elif name in _TABLE:
            kind, known, fixed = _TABLE[name]
            own.only(known, **fixed)
            if name in _WITH_SKIMAGE and importlib.util.find_spec("skimage") is None:
                raise VictimError(f"MONAI's {name} wants scikit-image", advice="pip install scikit-image")
            arguments = {argument: own(argument) for argument in own.arguments if argument in known}
            transforms.append(own.built(kind, keys=key, **arguments))
            described.append({"transform": name, **arguments})
        else:
            raise own.refused(expected=f"one of {sorted([*_TABLE, *_PASSED_OVER, 'Invertd', 'Lambdad'])}")
    return Postprocessing(tuple(transforms), key), described


def _painting(own: Component) -> Painting:
    """A ``Lambdad`` that does nothing but paint numbers; its text is read and never run."""
    own.only(("func",), overwrite=(True,), track_meta=(True, False))
    painting = Painting.read(str(own.config.raw(f"{own.key}.func")))
    if painting is None:
        raise own.refused("func", "a lambda of torch.where over channels: where(x[[2]] > 0, 4, where(…, 0))")
    return painting


def _inversion(own: Component, image: str, key: str, before: Compose) -> Invertd:
    own.only((*_INVERSION, "nearest_interp"), post_func=(None,))
    if own.config.followed(f"{own.key}.transform")[0] != "preprocessing":
        raise own.refused("transform", "@preprocessing")
    if own("orig_keys", image) not in (image, [image]):
        raise own.refused("orig_keys", repr(image))
    return Invertd(keys=key, transform=before, orig_keys=image, nearest_interp=own.flag("nearest_interp", True))


def without_writing(transforms: Sequence[Transform]) -> tuple[Transform, ...]:
    """All but those that write files."""
    return tuple(t for t in transforms if not isinstance(t, SaveImaged))
