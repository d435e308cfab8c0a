"""What a bundle's answers mean: the channels of ``metadata.json``, the activation, and how labels are painted."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from medadv import vocabulary
from medadv.errors import ConfigError, VictimError
from medadv.labels import BACKGROUND, BRATS_2018, LabelScheme
from medadv.victims.declared import Declared
from medadv.victims.formats.bundle.config import Config
from medadv.victims.head import Head, Sigmoid, Softmax

Activation = Literal["softmax", "sigmoid"]
Painted = Callable[[Sequence[str]], Mapping[str, int]]


def only_name(metadata: Config, side: str) -> str:
    """The one input or output of the network.

    Raises:
        VictimError: the metadata name none, or several.
    """
    there = metadata.raw(f"network_data_format.{side}")
    if not isinstance(there, dict) or len(there) != 1:
        raise VictimError(
            f"the bundle's metadata.json does not name one of the network's {side}",
            got=sorted(there) if isinstance(there, dict) else there,
            expected=f"network_data_format.{side} with one entry",
        )
    return str(next(iter(there)))


def channel_names(metadata: Config, side: str) -> tuple[str, ...]:
    """The names of the channels of the one input or output, in order.

    Raises:
        VictimError: there is no ``channel_def``, or it does not number the channels 0, 1, 2 …
    """
    key = f"network_data_format.{side}.{only_name(metadata, side)}.channel_def"
    table = metadata.raw(key)
    numbered = isinstance(table, dict) and all(isinstance(name, str) for name in table.values())
    if not numbered or sorted(table) != sorted(map(str, range(len(table)))) or not table:
        raise VictimError(
            "the bundle's metadata.json does not say what the channels are",
            got=f"{key}: {table}",
            expected="for example {'0': 'T1', '1': 'FLAIR'}",
            cause="channel order is declared by whoever trained the network; it cannot be seen in the weights",
        )
    return tuple(table[str(i)].strip() for i in range(len(table)))


def modalities_of(metadata: Config, names: Mapping[str, str]) -> tuple[str, ...]:
    """The network's modalities, in the data's words.

    Raises:
        VictimError: the metadata do not say, or two channels have one name.
    """
    written = channel_names(metadata, "inputs")
    own = tuple(names.get(name) or vocabulary.modality(name) for name in written)
    if len(set(own)) < len(own):
        raise VictimError("the bundle's metadata.json gives two input channels one name", got=list(written))
    return own


def head_of(metadata: Config, activation: Activation, declared: Declared | None, painted: Painted) -> Head:
    """The head over the channels that the bundle declares.

    Args:
        metadata: with the ``channel_def`` of the output.
        activation: what the postprocessing applies.
        declared: the data's scheme, and its words; None: the bundle's own.
        painted: the number that the postprocessing paints each tissue with, if it does, told the regions' order.

    Raises:
        ConfigError: the data's scheme has other tissues than the channels.
        VictimError: the channels do not say what they are, or contradict the activation.
    """
    written = channel_names(metadata, "outputs")
    names = declared.names if declared else {}
    if activation == "softmax":
        return _softmax(tuple(names.get(name) or vocabulary.tissue(name) for name in written), declared)
    regions = tuple(names.get(name) or vocabulary.region(name) for name in written)
    if len(set(regions)) < len(regions) or any(vocabulary.tissue(name) == BACKGROUND for name in written):
        raise VictimError(
            "the bundle's postprocessing takes a sigmoid, and its channels are no regions",
            got=list(written),
            expected="one name a region, and none for background",
            cause="activation and channel_def disagree",
        )
    return _sigmoid(regions, declared.scheme if declared else _painted_scheme(regions, painted(regions)))


def _softmax(tissues: tuple[str, ...], declared: Declared | None) -> Head:
    if len(set(tissues)) < len(tissues) or BACKGROUND not in tissues:
        raise VictimError(
            "the bundle's postprocessing takes a softmax or argmax, and its channels are no tissues and a background",
            got=list(tissues),
            expected="one name a tissue, 'background' among them",
            cause="activation and channel_def disagree",
        )
    if declared is None:
        return Softmax(vocabulary.declared_scheme("bundle", {tissue: i for i, tissue in enumerate(tissues)}))
    scheme = declared.scheme
    if set(tissues) != set(scheme.tissues):
        raise ConfigError(
            "the bundle knows other tissues than the data has",
            got=list(tissues),
            expected=list(scheme.tissues),
            advice="tell the data's words for the bundle's: victims.<name>.names: {bundle's word: data's word}",
        )
    if tissues == scheme.tissues:
        return Softmax(scheme)
    # In another order: its own numbers, one a channel. Labels are told by tissue, not by number.
    return Softmax(LabelScheme(f"{scheme.name}, in the bundle's order", _numbered(tissues), scheme.regions))


def _numbered(tissues: Sequence[str]) -> dict[str, int]:
    return {tissue: number for number, tissue in enumerate(tissues)}


def _sigmoid(regions: tuple[str, ...], scheme: LabelScheme) -> Head:
    alone = {region: (region,) for region in regions if region in scheme.numbers and region not in scheme.regions}
    if alone:
        scheme = LabelScheme(scheme.name, scheme.numbers, {**scheme.regions, **alone})
    if unknown := sorted(set(regions) - set(scheme.regions)):
        raise ConfigError(
            "the bundle answers regions that the data's label scheme does not have",
            got=unknown,
            expected=f"some of {list(scheme.regions)}",
            advice="tell the data's words for the bundle's: victims.<name>.names: {bundle's word: data's word}",
        )
    return Sigmoid(scheme, regions)


def _painted_scheme(regions: Sequence[str], painted: Mapping[str, int]) -> LabelScheme:
    """The bundle's own scheme, where it says which numbers it paints whole tumour, core and enhancing tumour with."""
    if set(regions) != set(BRATS_2018.regions) or not painted:
        raise ConfigError(
            "the bundle answers regions, and nobody says which tissues and label numbers they are made of",
            got=list(regions),
            expected="a label scheme with these regions",
            advice="give the scheme of the data: Declared(scheme=…), or name the data in the study",
        )
    return LabelScheme("bundle", painted, BRATS_2018.regions)


@dataclass(frozen=True)
class Painting:
    """``torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, …, 0))``: the first region that holds gives the number.

    Attributes:
        rules: (channel, number), the first that holds counts.
        otherwise: the number where none holds.
    """

    rules: tuple[tuple[int, int], ...]
    otherwise: int

    @classmethod
    def read(cls, text: str) -> Painting | None:
        """The painting that a ``$lambda`` writes, by its syntax alone; None where it writes anything else."""
        try:
            tree = ast.parse(text.removeprefix("$").strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        if not isinstance(tree, ast.Lambda) or len(text) > 2000:
            return None
        rules: list[tuple[int, int]] = []
        place: ast.expr = tree.body
        names = [argument.arg for argument in tree.args.args]
        while isinstance(place, ast.Call) and ast.unparse(place.func) == "torch.where" and len(place.args) == 3:
            condition = re.fullmatch(r"(\w+)\[\[(\d+)\]\] (?:> 0|> 0\.5|== 1)", ast.unparse(place.args[0]))
            number = _whole(place.args[1])
            if place.keywords or condition is None or [condition[1]] != names or number is None:
                return None
            rules.append((int(condition[2]), number))
            place = place.args[2]
        otherwise = _whole(place)
        return cls(tuple(rules), otherwise) if rules and otherwise is not None else None

    def __call__(self, masks: Tensor) -> Tensor:
        """Masks ``(r, *s)`` → numbers ``(1, *s)``."""
        labels = torch.full_like(masks[:1], self.otherwise)
        for channel, number in reversed(self.rules):
            labels = torch.where(masks[[channel]] > 0, number, labels)
        return labels


def _whole(node: ast.expr) -> int | None:
    value: Any = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
