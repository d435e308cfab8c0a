"""What is said of a model where its own file is silent: a state dict holds numbers, and none of their meaning.

What was not said is None. A file that speaks is held against what was said; one that does not needs all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import yaml
from torch import nn

from medadv.errors import ConfigError
from medadv.labels import LabelScheme
from medadv.victims.combine import Scaled
from medadv.victims.head import Head, Sigmoid, make_head
from medadv.victims.multi_scale import MultiScaled
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import ZScore
from medadv.victims.preprocess import Intensity, Step
from medadv.victims.random_transforms import RandomTransform
from medadv.victims.segmentation import Segmenter
from medadv.victims.transforms import InputTransform, StraightThrough
from medadv.victims.window import Inference, SlidingWindow

NETWORK, NORMALISE, INFERENCE = Architecture(), ZScore(), SlidingWindow((32, 32, 32))
"""What is proposed where somebody has to say it; what a victim that medadv trains itself has by default."""


@dataclass(frozen=True)
class Declared:
    """How a network is deployed, as its user says. None: the user has not said.

    Attributes:
        scheme: the label scheme that its answers are told in: the data's.
        modalities: its input channels, in order, in the data's words.
        head: what its output channels are; a softmax over the scheme's tissues unless something else is said.
        regions: the channels of a sigmoid head, in order.
        network: how it is built, where the file holds weights alone.
        spatial: the steps between grids before the normalisation, in order.
        normalise: the change of intensities; several in order.
        inference: whole volumes or windows.
        names: the file's words for modalities, tissues and regions → the data's, beyond ``medadv.vocabulary``.
        folds: which members of an ensemble; None for all.
        data: the data's modalities, which are proposed where nobody has said what the channels are.
    """

    scheme: LabelScheme
    modalities: tuple[str, ...] | None = None
    head: Literal["softmax", "sigmoid"] | None = None
    regions: tuple[str, ...] | None = None
    network: Architecture | None = None
    spatial: tuple[Step, ...] | None = None
    normalise: Step | tuple[Step, ...] | None = None
    inference: Inference | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    folds: tuple[int, ...] | None = None
    data: tuple[str, ...] | None = None

    def make_head(self) -> Head:
        """The head over the declared scheme."""
        return make_head(self.head or "softmax", self.scheme, self.regions)

    @property
    def channels(self) -> tuple[int, int]:
        """How many channels enter the network, and how many leave it.

        Raises:
            ConfigError: nobody has said what its input channels are.
        """
        self.check_complete("a network's channels have to be declared")
        assert self.modalities is not None
        return len(self.modalities), len(self.make_head().channels)

    def build(self) -> nn.Module:
        """The declared network with fresh weights.

        Raises:
            ConfigError: nobody has said which network it is and how it is deployed, or it cannot be built.
        """
        self.check_complete("weights are numbers: which network they belong to has to be said", network=True)
        assert self.network is not None
        return build_network(self.network, *self.channels)

    def check(self, victim: object) -> None:
        """Refuse a model whose own file says otherwise.

        Raises:
            ConfigError: no segmentation, or one that is deployed in another way.
        """
        if not isinstance(victim, Segmenter):
            raise ConfigError(
                "the model's own file says that it is a detector",
                got="settings of a segmentation beside it",
                advice="leave head, regions and inference out; of weights alone, declare a DeclaredDetector",
            )
        check_said(victim, self)

    def deployed(self, network: nn.Module) -> Segmenter:
        """A network as it is declared to be deployed.

        Raises:
            ConfigError: modalities, normalisation, inference or the regions of a sigmoid head are not declared.
        """
        self.check_complete("a network does not say how it is deployed")
        assert self.modalities is not None
        assert self.normalise is not None
        assert self.inference is not None
        steps = (*(self.spatial or ()), *_steps(self.normalise))
        return Segmenter(network, self.make_head(), self.modalities, steps, self.inference)

    def missing(self, network: bool = False) -> dict[str, Any]:
        """What a file that says nothing leaves to its user, and is not said: a proposal for each, as in a study.

        Args:
            network: whether the network has to be named, too.
        """
        data = list(self.data or [f"<channel {number}>" for number in range(1, 5)])
        proposed = {
            "network": NETWORK.model_dump() if network and self.network is None else None,
            "modalities": data if self.modalities is None else None,
            "regions": list(self.scheme.regions) if self.head == "sigmoid" and self.regions is None else None,
            "normalise": {"name": NORMALISE.name} | asdict(NORMALISE) if self.normalise is None else None,
            "inference": {"name": INFERENCE.name} | asdict(INFERENCE) if self.inference is None else None,
        }
        return {setting: value for setting, value in proposed.items() if value is not None}

    def check_complete(self, problem: str, network: bool = False) -> None:
        """Refuse to guess what nobody has said.

        Args:
            problem: what is wrong, in one sentence.
            network: whether the network has to be named, too.

        Raises:
            ConfigError: something is missing; its advice is the lines that a study needs.
        """
        if missing := self.missing(network):
            raise ConfigError(
                problem,
                got=f"nothing of {', '.join(missing)}",
                expected="as it was trained: with other channels, normalisation or windows it is another model",
                advice=f"add to victims.<name>, with the values of your training:\n{lines(missing)}\nin Python: "
                f"Declared(scheme, {', '.join(f'{name}=…' for name in missing)})",
            )


def undeclared(problem: str) -> ConfigError:
    """The error of a file that says nothing, opened without any declaration."""
    return ConfigError(
        problem,
        got="no declaration",
        expected="its modalities, head, normalisation and inference; for weights alone, the network by name",
        advice="name it in a study (victims.<name>.network, .modalities, .head, .normalise and .inference); in Python: "
        "open_victim(path, Declared(scheme, modalities=…, network=…, normalise=…, inference=…))",
    )


def lines(settings: Mapping[str, Any], indent: int = 4) -> str:
    """Settings as lines of YAML, one a setting."""
    return "\n".join(f"{' ' * indent}{name}: {_flow(value)}" for name, value in settings.items())


def check_said(
    victim: Segmenter, declared: Declared | None, words: Collection[str] = (), has_folds: bool = False
) -> None:
    """Refuse what was said of a model and its own file says otherwise, or has no use for.

    Args:
        victim: as its file says, with medadv's steps in the order in which they are taken.
        declared: what the user says.
        words: the file's words for modalities, tissues and regions, which ``names`` may translate.
        has_folds: whether folds of it can be chosen.

    Raises:
        ConfigError: a contradiction, a word that the file does not have, or folds of a format that has none.
    """
    if declared is None:
        return
    if unused := sorted(set(declared.names) - set(words)):
        raise ConfigError(
            "names translate words that the model's own file does not have",
            got=unused,
            expected=f"some of {sorted(words)}" if words else "no names: the file has no words of its own",
            advice="leave these names out, or correct their spelling",
        )
    if declared.folds is not None and not has_folds:
        raise ConfigError(
            "folds are chosen of a model that has none",
            got=list(declared.folds),
            expected="no folds: only an nnU-Net folder holds several",
            advice="leave folds out; the mean of several files is a list of them: weights: [a.pt, b.pt]",
        )
    own, said = _settings(victim), _said(declared)
    wrong = [name for name, value in said.items() if value != own[name]]
    if declared.network is not None and not _is_network(declared.network, victim):
        said["network"], own["network"] = declared.network.name, "the model brings its own network"
        wrong.append("network")
    if wrong:
        translate = words and {"modalities", "regions"} & set(wrong)
        raise ConfigError(
            "the model's own file says otherwise than the settings beside it",
            got={name: said[name] for name in wrong},
            expected={name: own[name] for name in wrong},
            advice=f"leave {', '.join(wrong)} out: the file says how the network was trained"
            + ("; where only the words differ: names: {the file's word: the data's}" if translate else ""),
        )


def _settings(victim: Segmenter) -> dict[str, Any]:
    """How a victim is deployed, under the names that a study has for it."""
    # An input transform stands in front of all that a training knew: a card that names one contradicts nobody.
    steps = [step for step in victim.steps if not isinstance(step, InputTransform | StraightThrough | RandomTransform)]
    return {
        "modalities": victim.modalities,
        "head": victim.head.name,
        "regions": victim.head.regions if isinstance(victim.head, Sigmoid) else None,
        "spatial": tuple(step for step in steps if not isinstance(step, Intensity)),
        "normalise": tuple(step for step in steps if isinstance(step, Intensity)),
        "inference": victim.inference,
    }


def _said(declared: Declared) -> dict[str, Any]:
    settings = {name: getattr(declared, name) for name in ("modalities", "head", "regions", "spatial", "inference")}
    settings["normalise"] = None if declared.normalise is None else _steps(declared.normalise)
    listed = ("modalities", "regions", "spatial")
    return {n: tuple(value) if n in listed else value for n, value in settings.items() if value is not None}


def _is_network(declared: Architecture, victim: Segmenter) -> bool:
    built = build_network(declared, len(victim.modalities), len(victim.head.channels))
    layers: Any = victim.network
    while isinstance(layers, Scaled | MultiScaled):
        layers = layers.network
    return repr(built) == repr(layers)


def _steps(normalise: Step | tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(normalise) if isinstance(normalise, tuple | list) else (normalise,)


def _flow(value: Any) -> str:
    """One line of YAML."""
    # In a list, since a document that is one word ends with a mark of its own.
    return str(yaml.safe_dump([_plain(value)], default_flow_style=True, width=10_000, sort_keys=False)).strip()[1:-1]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
