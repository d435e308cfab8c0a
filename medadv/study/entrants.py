"""The victims of a study as a user writes them, and as they enter it: who is like whom, who teaches whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from medadv.defense.schedule import Schedule
from medadv.study.defences import Defence, Distillation, Elsewhere, Teacher, Trained, temperature
from medadv.study.specified import Specified, distinct
from medadv.victims.declared import INFERENCE, NETWORK, NORMALISE
from medadv.victims.defended import Protection
from medadv.victims.detection import GREY_LEVELS
from medadv.victims.detectors.build import DETECTORS
from medadv.victims.detectors.kinds import AnySight
from medadv.victims.networks import Architecture
from medadv.victims.normalize import Normalisation
from medadv.victims.proposals import Matching
from medadv.victims.spatial import Spatial
from medadv.victims.window import SlidingWindow, WholeVolume


class Training(Specified):
    """How a victim's network is trained before it is attacked."""

    steps: int = Field(250, ge=1)
    batch: int = Field(2, ge=1)
    rate: float = Field(2e-3, gt=0)
    roi: tuple[int, ...] = (32, 32, 32)
    flips: tuple[int, ...] = (0,)
    validate_every: int = Field(50, ge=1)
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="of the network in training; validation and attacks are float32"
    )
    accumulate: int = Field(1, ge=1, description="batches whose gradients are averaged for one step")

    @model_validator(mode="after")
    def _axes(self) -> Training:
        if min(self.roi, default=0) < 1 or not set(self.flips) <= set(range(len(self.roi))):
            raise ValueError("roi has a size of at least 1 for each axis, and flips name axes of it, from 0")
        return self

    def schedule(self, seed: int) -> Schedule:
        """As the training loop understands it."""
        same = ("steps", "rate", "validate_every", "precision", "accumulate")
        return Schedule(**{name: getattr(self, name) for name in same}, seed=seed)


class VictimSpec(Specified):
    """A network, how it is deployed, and where its weights come from."""

    like: str | None = Field(
        None, description="a victim above whose settings it shares but for its weights, its defence and what is said"
    )
    defence: Defence | None = Field(None, description="what protects it; the victim that it is like has none of it")
    weights: str | tuple[str, ...] | None = Field(
        None,
        description="a medadv victim, MONAI bundle, nnU-Net folder, exported program or state dict; several for their "
        "mean; {fold} stands for the fold of a cross-validation; left out: the victim is trained",
    )
    modalities: tuple[str, ...] | None = Field(
        None, min_length=1, description="its input channels in the data's words, in order; the data's own if left out"
    )
    names: dict[str, str] = Field({}, description="the model's words for modalities, tissues, regions: the data's")
    folds: tuple[int, ...] | None = Field(None, min_length=1, description="members of an nnU-Net ensemble; else all")
    mirror: tuple[int, ...] = Field((), description="axes along which images are mirrored at test time, from 0")
    network: Architecture = NETWORK
    head: Literal["softmax", "sigmoid"] = "softmax"
    regions: tuple[str, ...] | None = Field(
        None, min_length=1, description="channels of a sigmoid head; all regions if left out"
    )
    spatial: tuple[Annotated[Spatial, Field(discriminator="name")], ...] = Field(
        (), description="steps between grids before the normalisation, in order"
    )
    normalise: Annotated[Normalisation, Field(discriminator="name")] = NORMALISE
    inference: Annotated[WholeVolume | SlidingWindow, Field(discriminator="name")] = INFERENCE
    task: Literal["segmentation", "detection"] | None = Field(
        None, description="what a victim from Python is asked; by its network's name if left out"
    )
    sight: Annotated[AnySight, Field(discriminator="name")] | None = Field(
        None, description="of a detector: which places are attacked, e.g. how dense proposals; by its kind if left out"
    )
    matching: Matching = Field(Matching(), description="of a detector: which of these places are targets of objects")
    training: Training = Training()

    @property
    def detects(self) -> bool:
        """Whether it is a detector of objects."""
        return self.network.name in DETECTORS if self.task is None else self.task == "detection"

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, modalities: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if modalities is not None:
            distinct(modalities)
        return modalities  # in their order: it is the channels'

    @model_validator(mode="after")
    def _of_somebody(self) -> VictimSpec:
        if self.defence is not None and not isinstance(self.defence, Teacher) and self.like is None:
            raise ValueError("a defence is judged beside the undefended victim: say which by `like: <its name>`")
        if self.weights is not None and self.defence is not None and not isinstance(self.defence, Elsewhere):
            raise ValueError(
                f"the {self.defence.name} is trained by the study, so it has no weights yet; of weights that hold a "
                "defence say `defence: {name: elsewhere}`"
            )
        if self.weights is None and isinstance(self.defence, Elsewhere):
            raise ValueError("a defence made elsewhere is in a victim's weights: say where they are")
        return self

    @model_validator(mode="before")
    @classmethod
    def _grey_levels(cls, written: Any) -> Any:
        """torchvision's detectors take [0, 1], and normalise that themselves."""
        network = written.get("network") if isinstance(written, dict) else None
        name = network.get("name") if isinstance(network, dict) else getattr(network, "name", None)
        return {"normalise": GREY_LEVELS, **written} if name in DETECTORS else written

    @model_validator(mode="after")
    def _of_one_task(self) -> VictimSpec:
        if self.like is None or {"network", "task"} & self.model_fields_set:
            self.check_task()
        return self  # else the victim that it is like has the network

    def check_task(self) -> None:
        """Refuse settings of the other task.

        Raises:
            ValueError: a setting of detectors for a segmentation network, or the other way round.
        """
        of_detectors = {"sight", "matching"}
        of_segmenters = {"head", "regions", "spatial", "inference", "mirror", "names", "folds"}
        others = of_segmenters if self.detects else of_detectors
        defaults = {name: field.get_default() for name, field in type(self).model_fields.items()}
        if said := sorted(name for name in others if getattr(self, name) != defaults[name]):
            kind, other = ("detector", "segmentation") if self.detects else ("segmentation network", "detector")
            raise ValueError(f"{', '.join(said)} are settings of a {other}, and {self.network.name} is a {kind}")
        if self.detects and self.defence is not None and not isinstance(self.defence, Elsewhere):
            raise ValueError(f"the {self.defence.name} is a defence of segmentation networks; a detector has none yet")


@dataclass(frozen=True)
class Entrant:
    """One victim as it enters the study.

    Attributes:
        name: in the study.
        spec: what it is, with everything that it takes from the victim that it is like.
        undefended: the victim that it is held against, which has no defence; None where it is none itself.
        behind: the victim that is put behind a protection, and may have another itself; None without one.
        teacher: the victim whose soft labels it learns; None where it learns from the labels.
        judged: False for a teacher that is there for its student alone: it is attacked only for what is transferred.
    """

    name: str
    spec: VictimSpec
    undefended: str | None = None
    behind: str | None = None
    teacher: str | None = None
    judged: bool = True


def entrants(victims: Mapping[str, VictimSpec]) -> dict[str, Entrant]:
    """All victims of a study, in order: ``like`` is followed, each temperature has a student, each student a teacher.

    Raises:
        ValueError: a victim like, or taught by, one that is not there, or two of one name.
    """
    found: dict[str, Entrant] = {}
    for name, written in victims.items():
        if written.like is not None and written.like not in victims:
            raise ValueError(f"the victim {name!r} is like {written.like!r}; the study's victims are {list(victims)}")
        if written.like is not None and written.like not in found:
            raise ValueError(f"the victim {name!r} is like {written.like!r}, which has to stand above it")
        like = None if written.like is None else found[written.like].spec
        root = None if written.like is None else _undefended(written.like, found)
        _check_told(name, written, [spec for spec in (like, found[root].spec if root else None) if spec is not None])
        if root is None and written.defence is not None and not isinstance(written.defence, Teacher):
            raise ValueError(
                f"the defence of {name!r} has no undefended victim: {written.like!r} is a teacher that is like nobody"
            )
        for entrant in _made(name, _merged(like, written), root):
            if entrant.name in found:
                raise ValueError(f"two victims are called {entrant.name!r}")
            found[entrant.name] = entrant
            if entrant.teacher is not None:
                _check_teacher(entrant, found)
    return found


def _undefended(name: str, found: Mapping[str, Entrant]) -> str | None:
    """The first victim without a defence, from one to the one that it is like; None where there is none."""
    place: str | None = name
    while place is not None and found[place].spec.defence is not None:
        place = found[place].spec.like
    return place


def _check_told(name: str, written: VictimSpec, above: Sequence[VictimSpec]) -> None:
    """What is written of a defence is what it needs, given the victims above that it is like: no less, and no more."""
    if isinstance(written.defence, Protection):
        if idle := sorted(written.model_fields_set - {"like", "defence"}):
            raise ValueError(
                f"the {written.defence.name} of {name!r} protects {written.like!r} as that one is: "
                f"{', '.join(idle)} would change nothing; say it of a victim above, and let {name!r} be like that one"
            )
        return
    if isinstance(written.defence, Trained) and any(spec.weights is not None for spec in above):
        said = written.model_fields_set.union(*(spec.model_fields_set for spec in above))
        if silent := [key for key in ("network", "training") if key not in said]:
            raise ValueError(
                f"the defence of {name!r} is trained like {written.like!r}, whose weights come from outside: say "
                f"{' and '.join(silent)}, or it would be another network that is compared"
            )


def _check_teacher(student: Entrant, found: Mapping[str, Entrant]) -> None:
    """A student and its teacher have one head and one temperature."""
    assert student.teacher is not None
    called = f"the victim {student.name!r} is taught by {student.teacher!r}"
    if student.teacher not in found:
        raise ValueError(f"{called}, which does not stand above it; there are {list(found)}")
    teacher, at = found[student.teacher].spec, temperature(student.spec.defence)
    if (own := temperature(teacher.defence)) != at:
        raise ValueError(f"{called} at temperature {at:g}, which was trained at {own:g}")
    if (teacher.head, teacher.regions) != (student.spec.head, student.spec.regions):
        raise ValueError(f"{called}, whose head says something else: student and teacher have the same channels")
    seen = ("modalities", "spatial", "normalise")
    if teacher.weights is None and (
        other := [key for key in seen if getattr(teacher, key) != getattr(student.spec, key)]
    ):
        raise ValueError(f"{called}, who would be shown other images: both have the same {' and '.join(other)}")


def _made(name: str, spec: VictimSpec, root: str | None) -> Iterator[Entrant]:
    """A victim; of a distillation a student for each temperature, before it its teacher."""
    defence = spec.defence
    undefended = None if defence is None or isinstance(defence, Teacher) else root
    if not isinstance(defence, Distillation):
        yield Entrant(name, spec, undefended, behind=spec.like if isinstance(defence, Protection) else None)
        return
    several = isinstance(defence.at, tuple)
    for at in defence.at if isinstance(defence.at, tuple) else (defence.at,):
        student, teacher = f"{name}-T{at:g}" if several else name, defence.teacher
        if teacher is None:
            teacher = f"{student}-teacher"
            yield Entrant(teacher, spec.model_copy(update={"defence": Teacher(name="teacher", at=at)}), judged=False)
        one = spec.model_copy(update={"defence": defence.model_copy(update={"at": at})})
        yield Entrant(student, one, undefended, teacher=teacher)


def _merged(like: VictimSpec | None, written: VictimSpec) -> VictimSpec:
    """What is written over what the other one has; of a training only what is written anew changes."""
    if like is None:
        return written
    own, other = (spec.model_dump(mode="json", by_alias=True, exclude_unset=True) for spec in (written, like))
    shared: dict[str, Any] = {key: value for key, value in other.items() if key not in ("weights", "defence", "like")}
    training = {**shared.get("training", {}), **own.get("training", {})}
    try:
        merged = VictimSpec.model_validate({**shared, **own, **({"training": training} if training else {})})
    except ValidationError as error:
        raise ValueError(str(error)) from error
    merged.check_task()
    return merged
