"""How a test set is laid out for somebody else's model: file names and label numbers of nnU-Net and of BraTS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from medadv.data.brats import MODALITIES, RELEASES
from medadv.errors import ConfigError
from medadv.labels import LabelScheme
from medadv.vocabulary import modality

ENDING = ".nii.gz"


@runtime_checkable
class Layout(Protocol):
    """Where the files of a case lie below one folder, and what its label numbers mean."""

    @property
    def scheme(self) -> LabelScheme:
        """What the numbers of its label maps mean."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """The modalities in its order."""
        ...

    def image(self, case: str, modality: str) -> str:
        """The file of one modality."""
        ...

    def label(self, case: str) -> str:
        """The expert's label map."""
        ...

    def declarations(self, description: str) -> Mapping[str, str]:
        """File → text, of what describes the folder itself."""
        ...


@dataclass(frozen=True)
class NnUNetLayout:
    """nnU-Net v2 raw: ``imagesTs/{case}_{XXXX}.nii.gz``, channels numbered in their order, and a ``dataset.json``.

    Source: nnU-Net, documentation/dataset_format.md.
    """

    channels: tuple[str, ...]
    scheme: LabelScheme

    def image(self, case: str, modality: str) -> str:
        """``imagesTs/{case}_{XXXX}.nii.gz``."""
        return f"imagesTs/{case}_{self.channels.index(modality):04}{ENDING}"

    def label(self, case: str) -> str:
        """``labelsTs/{case}.nii.gz``."""
        return f"labelsTs/{case}{ENDING}"

    def declarations(self, description: str) -> Mapping[str, str]:
        """``dataset.json``."""
        content = {
            "description": description,
            "channel_names": {str(place): name for place, name in enumerate(self.channels)},
            "labels": {name: self.scheme.numbers[name] for name in self.scheme.tissues},
            "numTraining": 0,
            "file_ending": ENDING,
        }
        return {"dataset.json": json.dumps(content, indent=1)}


@dataclass(frozen=True)
class BratsLayout:
    """BraTS: ``{case}/{case}_t1.nii.gz`` …, in the names and label numbers of a release."""

    release: str

    @property
    def scheme(self) -> LabelScheme:
        """The release's own."""
        return RELEASES[self.release].scheme

    @property
    def channels(self) -> tuple[str, ...]:
        """BraTS's four."""
        return MODALITIES

    def image(self, case: str, modality: str) -> str:
        """``{case}/{case}_{name}.nii.gz``, with the release's separator and name."""
        rules = RELEASES[self.release]
        return f"{case}/{case}{rules.separator}{rules.names[modality]}{ENDING}"

    def label(self, case: str) -> str:
        """``{case}/{case}_seg.nii.gz``."""
        return f"{case}/{case}{RELEASES[self.release].separator}seg{ENDING}"

    def declarations(self, description: str) -> Mapping[str, str]:  # noqa: ARG002  (of the protocol)
        """Nothing: a BraTS folder does not describe itself."""
        return {}


def layout_of(text: str, modalities: Sequence[str], scheme: LabelScheme, release: str = "2021") -> Layout:
    """Read ``nnunet``, ``nnunet:flair,t1,t1ce,t2`` (another order, or fewer), ``brats`` or ``brats:2023``.

    Args:
        text: the layout; modalities in any spelling.
        modalities, scheme: what the data have.
        release: of BraTS, where the layout does not name it.

    Raises:
        ConfigError: no such layout, channel or release, or data that it has no names for.
    """
    kind, _, detail = text.partition(":")
    if kind == "nnunet":
        channels = tuple(modality(name.strip()) for name in detail.split(",")) if detail else tuple(modalities)
        if len(set(channels)) < len(channels) or not set(channels) <= set(modalities):
            raise ConfigError(
                "these are not channels of the data",
                got=list(channels),
                expected=f"some of {list(modalities)}, each once",
            )
        return NnUNetLayout(channels, scheme)
    if kind != "brats" or (detail or release) not in RELEASES:
        raise ConfigError(
            "there is no such layout",
            got=text,
            expected=f"nnunet, nnunet:{','.join(modalities)}, brats, or brats:RELEASE of {list(RELEASES)}",
        )
    layout = BratsLayout(detail or release)
    if set(modalities) != set(MODALITIES) or set(scheme.numbers) != set(layout.scheme.numbers):
        raise ConfigError(
            f"BraTS {layout.release} has no names for these data",
            got=f"{list(modalities)}; {list(scheme.tissues)}",
            expected=f"{list(MODALITIES)}; {list(layout.scheme.tissues)}",
            advice="lay them out as nnunet",
        )
    return layout
