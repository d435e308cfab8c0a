"""What is said of a model where its own file is silent: a state dict holds numbers, and none of their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from medadv.labels import LabelScheme
from medadv.victims.head import Head, make_head
from medadv.victims.networks import Architecture
from medadv.victims.normalize import ZScore
from medadv.victims.preprocess import Step
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import Inference, WholeVolume


@dataclass(frozen=True)
class Declared:
    """How a network is deployed, as its user says.

    Attributes:
        scheme: the label scheme that its answers are told in.
        modalities: its input channels, in order, in the data's words.
        head, regions: what its output channels are; regions None: all of the scheme's.
        network: how it is built; None where the file says, or holds the network itself.
        preprocess: stored voxels → its input.
        inference: whole volumes or windows.
        names: the file's words for modalities, tissues and regions → the data's, beyond ``medadv.vocabulary``.
        folds: which members of an ensemble; None for all.
        given: the settings that the user wrote; where the file says otherwise, that is an error and not a choice.
    """

    scheme: LabelScheme
    modalities: tuple[str, ...]
    head: Literal["softmax", "sigmoid"] = "softmax"
    regions: tuple[str, ...] | None = None
    network: Architecture | None = None
    preprocess: tuple[Step, ...] = (ZScore(),)
    inference: Inference = WholeVolume()  # noqa: RUF009  (a frozen value)
    names: Mapping[str, str] = field(default_factory=dict)
    folds: tuple[int, ...] | None = None
    given: frozenset[str] = frozenset()

    def make_head(self) -> Head:
        """The head over the declared scheme."""
        return make_head(self.head, self.scheme, self.regions)

    def deployed(self, network: nn.Module) -> Segmenter:
        """A network as it is declared to be deployed."""
        return Segmenter(network, self.make_head(), self.modalities, self.preprocess, self.inference)
