"""One cell: a victim, a condition, a case. Shown, written, read again, predicted anew, scored, recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from medadv.attack.rng import Rng
from medadv.attack.threat import Box
from medadv.data.files import eight_bit, read, write, written
from medadv.data.picture import is_picture_case
from medadv.errors import CaseError, ConfigError, GradientError, Reason, RunError, VictimError
from medadv.study.bench import Bench, Contestant
from medadv.study.conditions import CLEAN, Condition, Image, Need, Partner, Scene, Shown
from medadv.study.fidelity import distortion, fidelity
from medadv.study.folder import versions
from medadv.study.metrics import MetricName
from medadv.study.records import ALL, SCHEMA, Effort, Record, digest, file_digest, write_record
from medadv.study.scores import VOLUMES, Measure, rows
from medadv.study.slices import Views, save_slices
from medadv.study.tasks import Answer


@dataclass(frozen=True, eq=False)
class Cell:
    """What is to be computed, and the key that names its result.

    Attributes:
        bench: the victim and the case.
        condition: how the case is presented.
        regions: what is scored.
        seed: the study's.
        sources: what the condition needs → the cell that delivers it.
        metrics: how it is scored.
        partners: the other victims that are attacked together with the bench's, each with the same case.
        certain: whether the record tells how sure the answer is.
    """

    bench: Bench
    condition: Condition
    regions: Sequence[str]
    seed: int
    sources: Mapping[Need, Cell] = field(default_factory=dict)
    metrics: tuple[MetricName, ...] = VOLUMES
    partners: Mapping[str, Bench] = field(default_factory=dict)
    certain: bool = False

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Everything that could change the numbers of this cell: no path, no time, no family of comparisons."""
        folder = self.condition.maps
        case, found_for = self.bench.case.case, self.found_for
        together = [bench.contestant.identity(case) for bench in self.partners.values()]
        return {
            "voxels": self.bench.digests.voxels,
            "label": self.bench.digests.label,
            **({} if folder is None else {"given_map": self.bench.maps[folder].digest}),
            **self.bench.contestant.identity(case),
            **({"attacked": [contestant.identity(case) for contestant in found_for]} if found_for else {}),
            **({"together": together} if together else {}),
            "condition": self.condition.settings(),
            "regions": list(self.regions),
            **({} if self.metrics == VOLUMES else {"metrics": list(self.metrics)}),
            **({"certainty": True} if self.certain else {}),
            "seed": self.seed,
            "precision": "float32",
            "schema": SCHEMA,
        }

    @property
    def found_for(self) -> list[Contestant]:
        """The victims that what the condition is made of was found for, and those of what that is made of."""
        found: list[Contestant] = []
        for need, source in self.sources.items():
            found += [] if need.victim is None else [source.bench.contestant]
            found += [bench.contestant for bench in source.partners.values()]
            found += source.found_for
        return found

    @cached_property
    def key(self) -> str:
        """The digest of the inputs."""
        return digest(self.inputs)

    @cached_property
    def allowed(self) -> Box | None:
        """What the condition may deliver for this case; None where it must deliver the case itself."""
        if self.condition.threat is None:
            return None
        bench = self.bench
        support = self.condition.reach(bench.support(self.condition.reach.kind), bench.case.modalities)
        return self.condition.threat(bench.x, support)

    @property
    def place(self) -> tuple[str, str, str]:
        """Victim, condition, case."""
        return self.bench.contestant.name, self.condition.name, self.bench.case.case

    def finished(self) -> Record | None:
        """The cell's record, if there is one; what it tells of the case is what the study tells of it now."""
        record = self.bench.folder.find(*self.place, self.key)
        told = self._told
        if record is None or all(getattr(record, name) == value for name, value in told.items()):
            return record
        write_record(self.bench.folder.path, record := record.model_copy(update=told))
        return record

    @property
    def _told(self) -> dict[str, Any]:
        """What a record says of its case beside the key: a group corrected in the data costs no attack."""
        case = self.bench.case
        tissues = case.scheme.partition([region for region in self.regions if region != ALL])
        return {"patient": case.patient, "tissues": tissues, "stratum": case.stratum, "fold": case.fold}

    def fetch(self) -> bool:
        """Bring back what the finished cell delivered, for conditions made from it; whether it is still there."""
        bench, record = self.bench, self.finished()
        if self.condition.name in bench.stored:
            return True
        case = written(bench.case, bench.folder.volume(*self.place)) if record and bench.folder.holds(record) else None
        if case is not None:
            bench.stored[self.condition.name] = read(case).x[None]
        return case is not None

    def compute(self, pictured: bool) -> Record:
        """Show the case, deliver it as files, score the files, record.

        Args:
            pictured: whether slices of the delivered volume are kept beside it.

        Raises:
            CaseError: the case cannot be attacked.
            RunError: the folder cannot be written, or what was delivered is not what was computed.
        """
        case = self.bench.case.case
        try:
            return self.bench.within_memory(lambda: self._computed(pictured))
        except GradientError as error:
            raise CaseError(Reason.GRADIENT_NOT_FINITE, f"{case}: {error.problem}") from error
        except ConfigError as error:  # settings were held against the data before: it is this case
            raise CaseError(Reason.GOAL, f"{case}: {error.problem}", got=error) from error
        except (VictimError, RuntimeError) as error:
            problem = (str(error).splitlines() or [type(error).__name__])[0]
            raise CaseError(Reason.VICTIM_FAILED, f"{case}: {problem}", got=error) from error

    def _computed(self, pictured: bool) -> Record:
        began = time.perf_counter()
        self.__dict__.pop("allowed", None)  # the volumes may have moved to another device since
        bench, victim = self.bench, self.bench.victim
        shown = self._show()
        delivered, files = self._deliver(shown)
        again = delivered[None].to(bench.device)
        bench.stored[self.condition.name] = again
        fooled = bench.predict(again)
        of_file, of_memory = (self._measured(answer) for answer in (fooled, bench.predict(shown.x)))
        pictures = is_picture_case(bench.case)
        if pictured:
            views = Views(bench.volume.x, delivered, bench.truth, bench.answer, fooled)
            support = bench.support(self.condition.reach.kind)[0].cpu()
            save_slices(bench.folder.volume(*self.place), views, bench.volume, bench.case.scheme, support)
        radii, size = self._extent(again)
        self.__dict__.pop("allowed", None)  # as large as the case; all cells of a case live as long as it
        record = Record(
            key=self.key,
            victim=bench.contestant.name,
            condition=self.condition.name,
            case=bench.case.case,
            **self._told,
            presented=self.condition.presented,
            inputs=self.inputs,
            radii=radii,
            size=size,
            delivered=files,
            versions=versions(),
            effort=_effort(shown),
            agreement=None if victim.one_way else bench.agreement(again, fooled),
            savings=tuple(bench.contestant.savings),
            device=str(bench.device),
            fidelity=fidelity(bench.volume.x, delivered, bench.case.modalities, 255.0 if pictures else None),
            scores=rows(of_file, of_memory, self._of_copy()),
            distortion=distortion(bench.volume.x, delivered, where=bench.volume.content) if pictures else None,
            certainty=bench.certainty(again) if self.certain else None,
            **bench.task.kept(fooled, bench.volume),
        )
        bench.folder.finish(record, time.perf_counter() - began)
        return record

    def _of_copy(self) -> list[Measure] | None:
        """The scores of a delivered picture's 8-bit copy, in which changes below half a grey level are gone."""
        bench = self.bench
        if self.condition is CLEAN or not is_picture_case(bench.case):
            return None
        copy = read(eight_bit(bench.case, bench.folder.volume(*self.place))).x
        return self._measured(bench.predict(copy[None].to(bench.device)))

    def _measured(self, answer: Answer) -> list[Measure]:
        return self.bench.task.measures(answer, self.bench.volume, self.regions, self.metrics)

    def _show(self) -> Shown:
        """The case as the condition presents it; its random stream follows from contents, not from names."""
        bench, victim = self.bench, self.bench.victim
        rng = Rng.seeded(self.seed, [bench.digests.voxels]).fork(digest(self.condition.settings()))
        support = bench.support(self.condition.reach.kind)
        spacing, modalities, folder = bench.volume.spacing, bench.case.modalities, self.condition.maps
        given = None if folder is None else bench.given(folder)
        partners = {
            name: Partner(other.victim, other.posed, None if folder is None else other.given(folder))
            for name, other in self.partners.items()
        }
        stored = {n: s.bench.stored[s.condition.name].to(bench.device) for n, s in self.sources.items()}
        scene = Scene(victim, bench.x, bench.posed, rng, stored, support, modalities, spacing, given, partners)
        return self.condition.show(scene)

    def _deliver(self, shown: Shown) -> tuple[Float[Tensor, "c *s"], dict[str, str]]:
        """The voxels as the files hold them, and the files' digests. The clean case is its own files."""
        voxels = shown.x[0].cpu()
        if self.condition is CLEAN:
            return voxels, {}
        bench = self.bench
        note = {
            "victim": bench.contestant.name,
            "condition": self.condition.settings(),
            "source_voxels_sha256": bench.digests.voxels,
        }
        folder = bench.folder.volume(*self.place)
        case = write(bench.volume, voxels, folder, stem=bench.case.case, note=note)
        again = read(case).x
        if self.allowed is not None and not bool(self.allowed.inside(again[None].to(bench.device)).all()):
            raise RunError(
                f"{self.condition.name} left its budget on the way through the file of {bench.case.case}",
                cause="a defect of medadv, or of the disk",
                advice="please report it, with the case's data type and size",
            )
        return again, {path.name: file_digest(path) for path in dict.fromkeys(case.images.values())}

    def _extent(self, x: Image) -> tuple[dict[str, dict[str, float]] | None, float | None]:
        """The budget in every unit by modality, and the share of it that the delivered voxels use."""
        if self.condition.threat is None or self.allowed is None:
            return None, None
        names = self.bench.case.modalities
        scales = self.condition.threat.scales(self.allowed.clean, self.allowed.support)
        told = scales.equivalents(self.allowed.radius)
        radii = {str(unit): dict(zip(names, values[0].tolist(), strict=True)) for unit, values in told.items()}
        return radii, self.allowed.size(x)[0].item()


def _effort(shown: Shown) -> Effort | None:
    if (adversarial := shown.adversarial) is None:
        return None
    steps = adversarial.passes.backward // shown.step_cost.backward
    return Effort(
        steps=steps if adversarial.moves is None else int(adversarial.moves[0]),
        forward=adversarial.passes.forward,
        backward=adversarial.passes.backward,
        zero_gradient_share=adversarial.zero_gradient_share[0].item(),
        silent_share=shown.silent,
        trace={
            name: [value for value in values[:, 0].tolist() if math.isfinite(value)]
            for name, values in adversarial.trace.items()
        },
    )
