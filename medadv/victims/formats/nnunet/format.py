"""nnU-Net v2: a trained-model folder as a victim, differentiated in float32 and scored by nnU-Net's own predictor.

Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature Methods
18 (2021). Plans name classes to import; without trust only those of its own architectures are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from medadv import vocabulary
from medadv.errors import ConfigError, VictimError
from medadv.labels import LabelScheme
from medadv.victims.combine import Mean, Mirrored, passes
from medadv.victims.declared import Declared, check_said
from medadv.victims.formats.nnunet.folder import Trained, read_folder, root_of
from medadv.victims.formats.nnunet.predictor import NnUNetDeployed, quiet
from medadv.victims.formats.nnunet.steps import preprocessing
from medadv.victims.head import Head, Sigmoid, Softmax
from medadv.victims.memory import is_full
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow

ARCHITECTURES = {
    f"dynamic_network_architectures.architectures.{module}.{name}"
    for module, name in (
        ("unet", "PlainConvUNet"),
        ("unet", "ResidualEncoderUNet"),
        ("unet", "ResidualUNet"),
        ("residual_unet", "ResidualEncoderUNet"),  # where nnU-Net 2.0 had it
    )
}
"""The networks that plans can name without trust."""

PARTS = re.compile(
    r"torch\.nn\.(modules\.[a-z]+\.)?[A-Z]\w*|dynamic_network_architectures\.building_blocks\.[a-z_]+\.[A-Z]\w*"
)
"""What such a network may be made of: layers of torch, blocks of nnU-Net's own library."""


class Slices(nn.Module):
    """A 2-D network on a stack of one slice: nnU-Net's 2-D configuration answers a volume slice by slice.

    Args:
        network: two axes of space.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def passes(self) -> int:
        """Networks answered for one answer."""
        return passes(self.network)

    def forward(self, x: Float[Tensor, "b c 1 *plane"]) -> Float[Tensor, "b k 1 *plane"]:
        """The slice's answer, on the slice."""
        answer: Tensor = self.network(x[:, :, 0])
        return answer.unsqueeze(2)


def recognises(path: Path) -> bool:
    """Whether this is a trained-model folder of nnU-Net v2, one of its folds, or a checkpoint in a fold."""
    return root_of(path) is not None


def load(path: Path, declared: Declared | None, trust: bool) -> Segmenter:
    """A trained nnU-Net, on the CPU: attacked through our windows in float32, scored by its own predictor.

    Args:
        path: the folder with ``plans.json``; ``fold_0`` in it for this fold alone; a checkpoint for itself alone.
        declared: ``names`` for channels and labels, ``folds``.
        trust: whether checkpoint and plans may run code.

    Raises:
        VictimError: nnU-Net is not installed, a folder that is incomplete or of another version, a program without
            trust, or a configuration that has no differentiable counterpart here.
        ConfigError: channels or labels that contradict what was declared.
    """
    try:
        with quiet():
            from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    except ImportError as error:
        raise VictimError(
            "this is a model of nnU-Net, and nnU-Net is not installed", got=error, advice="pip install medadv[nnunet]"
        ) from error
    trained = read_folder(path, declared.folds if declared else None, trust)
    names = declared.names if declared else {}
    with quiet():
        plans = PlansManager(deepcopy(trained.plans))
        configuration = _configuration(plans, trained.configuration)
    modalities, head = _modalities(trained.dataset, names, declared), _head(trained, names)
    steps = preprocessing(trained.plans, configuration.configuration, len(modalities))
    members = _networks(trained, plans, configuration, (len(modalities), len(head.channels)), trust)
    flat = len(configuration.patch_size) == 2
    if trained.mirroring and max(trained.mirroring) >= len(configuration.patch_size):
        raise VictimError("a checkpoint mirrors an axis that its patches do not have", got=trained.mirroring)
    each: list[nn.Module] = [Mirrored(member, trained.mirroring) if trained.mirroring else member for member in members]
    network = each[0] if len(each) == 1 else Mean(each)
    window = SlidingWindow(((1,) if flat else ()) + tuple(configuration.patch_size), 0.5, grid="nnunet")
    victim = Segmenter((Slices(network) if flat else network).eval(), head, modalities, steps, window)
    check_said(victim, declared, _words(trained), has_folds=True)
    reorients = trained.plans.get("image_reader_writer") == "NibabelIOWithReorient"
    deployed = NnUNetDeployed(
        plans, configuration, trained.dataset, members, trained.trainer, trained.mirroring, reorients
    )
    return replace(victim, deployed=deployed)


def _configuration(plans: Any, name: str) -> Any:
    try:
        configuration = plans.get_configuration(name)
        architecture = configuration.configuration["architecture"]
        assert isinstance(architecture["network_class_name"], str)
        assert isinstance(architecture["arch_kwargs"], dict)
        assert isinstance(architecture["_kw_requires_import"], list | tuple)
    except Exception as error:  # nnU-Net's managers raise whatever they meet in plans that are none of theirs
        raise VictimError(
            f"the configuration {name} of plans.json is of another version of nnU-Net",
            got=f"{type(error).__name__}: {error}",
            expected="architecture: network_class_name, arch_kwargs, _kw_requires_import",
            advice="open the folder with the version of nnU-Net that trained it, or train anew",
        ) from error
    if configuration.previous_stage_name is not None:
        raise VictimError(
            "this is the second stage of a cascade, which wants the answer of the first beside the image",
            got=name,
            expected="3d_fullres, 3d_lowres or 2d",
            advice="attack the first stage, or train 3d_fullres",
        )
    return configuration


def _modalities(dataset: Mapping[str, Any], names: Mapping[str, str], declared: Declared | None) -> tuple[str, ...]:
    """``channel_names`` in the data's words, in the order of the channels."""
    channels = dataset.get("channel_names", dataset.get("modality"))
    assert isinstance(channels, dict)  # by read_folder
    if sorted(channels) != sorted(str(place) for place in range(len(channels))):
        raise VictimError("dataset.json numbers its channels in another way than nnU-Net", got=channels)
    words = [str(channels[str(place)]) for place in range(len(channels))]
    found = tuple(names.get(word, vocabulary.modality(word)) for word in words)
    meant = declared.modalities if declared else None
    if len(set(found)) < len(found):
        # Channel names choose nnU-Net's normalisation, and some folders name nothing but that.
        if meant is not None and len(meant) == len(found):
            return meant
        raise ConfigError(
            "dataset.json calls two channels by one name",
            got=words,
            advice="say what they are, in order: victims.<name>.modalities",
        )
    return found


def _words(trained: Trained) -> set[str]:
    """What the folder calls its channels and labels; tissues that only regions name are ``label 2``."""
    labels: Mapping[str, Any] = trained.dataset["labels"]
    numbers = {n for value in labels.values() for n in (value if isinstance(value, list) else [value])}
    channels = trained.dataset.get("channel_names", trained.dataset.get("modality"))
    assert isinstance(channels, dict)  # by read_folder
    return {*labels, *map(str, channels.values()), *(f"label {number}" for number in numbers)}


def _head(trained: Trained, names: Mapping[str, str]) -> Head:
    """What the channels of the answer mean, as nnU-Net's ``LabelManager`` reads it."""
    labels = {word: value for word, value in trained.dataset["labels"].items() if word != "ignore"}
    regional = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
    if not regional:
        labels = {word: value[0] if isinstance(value, list) else value for word, value in labels.items()}
    order = trained.dataset.get("regions_class_order") or ()
    if regional and len(order) != len(labels) - 1:
        raise VictimError(
            "dataset.json has regions and does not say in which number each is painted",
            got=f"regions_class_order: {list(order)}",
            expected=f"{len(labels) - 1} numbers",
        )
    if not regional and sorted(labels.values()) != list(range(len(labels))):
        raise VictimError("the labels of dataset.json are not numbered 0, 1, 2 …", got=labels)
    name = str(trained.plans.get("dataset_name", "nnU-Net"))
    scheme = vocabulary.declared_scheme(name, {names.get(word, word): value for word, value in labels.items()}, order)
    scheme = _renamed(scheme, names)
    return Sigmoid(scheme, tuple(scheme.regions)) if regional else Softmax(scheme)


def _renamed(scheme: LabelScheme, names: Mapping[str, str]) -> LabelScheme:
    """Tissues that only regions name, ``label 2``, in the data's words."""
    return replace(
        scheme,
        numbers={names.get(tissue, tissue): number for tissue, number in scheme.numbers.items()},
        regions={r: tuple(names.get(tissue, tissue) for tissue in tissues) for r, tissues in scheme.regions.items()},
    )


def _networks(
    trained: Trained, plans: Any, configuration: Any, channels: tuple[int, int], trust: bool
) -> tuple[nn.Module, ...]:
    """One network a fold, built by nnU-Net's own code."""
    if not trust:
        _check_names(configuration)
    trainer = _trainer(trained.trainer, trust)
    members = []
    for fold, weights in trained.weights.items():
        try:
            with quiet():
                network: nn.Module = trainer.build_network_architecture(plans, configuration, *channels, False)
        except Exception as error:  # whatever a network raises whose arguments do not go together
            if is_full(error):
                raise
            raise VictimError(
                "nnU-Net cannot build the network that plans.json describes",
                got=f"{type(error).__name__}: {error}",
                cause="plans that were edited, or another version of nnU-Net",
            ) from error
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise VictimError(
                f"the weights of fold_{fold} are not those of the network that plans.json describes",
                got=str(error).splitlines()[1].strip() if "\n" in str(error) else error,
                cause="plans.json of another training, or a trainer that builds its own network",
            ) from error
        members.append(network.float().eval())
    return tuple(members)


def _check_names(configuration: Any) -> None:
    """Plans name what is imported to build a network; an import runs code."""
    name, arguments = configuration.network_arch_class_name, configuration.network_arch_init_kwargs
    named = {key: arguments.get(key) for key in configuration.network_arch_init_kwargs_req_import}
    strange = {key: value for key, value in named.items() if value is not None and not PARTS.fullmatch(str(value))}
    if name not in ARCHITECTURES:
        strange = {"network_class_name": name} | strange
    if strange:
        raise VictimError(
            "plans.json builds its network from classes that are not nnU-Net's own",
            got=strange,
            expected=f"one of {sorted(n.rsplit('.', 1)[1] for n in ARCHITECTURES)}, made of layers of torch.nn",
            advice="--trust imports them; only for a folder whose makers you trust with this machine",
        )


def _trainer(name: str, trust: bool) -> Any:
    """The class that trained, since it builds the network: nnU-Net's own, or with trust one of the user's."""
    import nnunetv2
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    root = str(Path(nnunetv2.__path__[0]) / "training" / "nnUNetTrainer")
    found: Any = None
    with quiet():
        try:
            if trust:
                found = recursive_find_trainer_class_by_name(name)
            else:
                found = recursive_find_python_class(root, name, "nnunetv2.training.nnUNetTrainer")
        except (RuntimeError, AssertionError):
            found = None
    if not (isinstance(found, type) and issubclass(found, nnUNetTrainer)):
        raise VictimError(
            "the class that trained this model is not part of nnU-Net, and might build another network",
            got=name,
            advice="nnUNet_extTrainer names the folder where it lies, and --trust runs it",
        )
    return found
