"""How sure victims are, in records: of the delivered file, of the deployed answer, and only where a study asks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from study.defended_study import by_place, go_defended
from study.defended_study import defended as defended_study
from study.small_study import Glow, every_record, go, small

from medadv.data.brats import brats_cohort
from medadv.data.case import Volume
from medadv.data.files import read, written
from medadv.labels import LabelScheme
from medadv.objects import Objects
from medadv.study.records import Record
from medadv.study.tasks import DETECTION, SEGMENTATION
from medadv.victims.head import Softmax
from medadv.victims.mean_field import MeanField
from medadv.victims.normalize import Unchanged, ZScore
from medadv.victims.segmentation import Segmenter

BUDGET = "0.3-sigma"
CRF = {"name": "mean-field CRF", "beta": 0.5, "unit": "sigma", "radius": 1, "iterations": 2}
VICTIMS = {
    "glow": {"inference": {"name": "whole"}},
    "crf": {"like": "glow", "defence": CRF},
    "by-passed": {"like": "glow", "defence": {**CRF, "gradient": "by-passed"}},
}


@pytest.fixture(scope="module")
def folder(one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CRF attacked by its full gradient and by-passed, and the network without it; all files kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medadv.study.run.build", lambda folder: folder)
        lent = {"from": ["by-passed"], "to": ["crf"]}
        study = defended_study(one, victims=VICTIMS, certainty=True, transfers=lent, volumes={"keep": "all"})
        return go_defended(study, tmp_path_factory.mktemp("runs"), victims={"glow": Glow()}).folder


@pytest.fixture(scope="module")
def records(folder: Path) -> dict[tuple[str, str], Record]:
    return {(victim, condition): r for (victim, condition, _), r in by_place(every_record(folder)).items()}


def network() -> Segmenter:
    case = Softmax(LabelScheme("gliomas", {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}))
    return Segmenter(Glow(), case, ("t1", "t1ce", "t2", "flair"), ZScore())


def delivered(folder: Path, root: Path, victim: str, condition: str) -> Volume:
    (case,) = brats_cohort(root, "2021").cases
    if condition == "clean":
        return read(case)
    found = written(case, folder / "volumes" / victim / condition / case.case)
    assert found is not None
    return read(found)


@pytest.mark.parametrize("victim", ["glow", "crf", "by-passed"])
@pytest.mark.parametrize("condition", ["clean", f"ifgsm-{BUDGET}"])
def test_it_is_that_of_the_file_and_of_the_deployed_answer(
    folder: Path, records: dict[tuple[str, str], Record], one: Path, victim: str, condition: str
) -> None:
    x = delivered(folder, one, victim, condition).x[None]
    with torch.no_grad():
        logits = network()(x)
        if victim != "glow":
            logits = MeanField(beta=0.5, unit="sigma", radius=1, iterations=2)(logits, x)
    p = logits.double().log_softmax(1).exp()
    first, second = p.topk(2, 1).values.unbind(1)
    expected = {
        "confidence": first.mean(),
        "doubt": (1 - first).mean(),
        "entropy": torch.special.entr(p).sum(1).mean(),
        "lead": (first.log() - second.log()).mean(),
    }
    told = records[victim, condition].certainty
    assert told is not None
    assert told == {name: pytest.approx(value.item(), rel=1e-4) for name, value in expected.items()}


def test_a_crf_is_surer_than_the_network_that_it_refines(records: dict[tuple[str, str], Record]) -> None:
    bare, refined = (records[victim, "clean"].certainty for victim in ("glow", "crf"))
    assert bare is not None
    assert refined is not None
    assert refined["lead"] > bare["lead"] + 1
    assert refined["entropy"] < bare["entropy"]


def test_the_attacked_way_and_the_deployed_one_are_compared_where_they_are_two(
    records: dict[tuple[str, str], Record],
) -> None:
    for (victim, condition), record in records.items():
        assert (record.agreement is not None) == (victim == "by-passed"), (victim, condition)
    clean = records["by-passed", "clean"].agreement
    assert clean is not None
    assert 0.5 < clean < 1


def test_the_by_passed_attack_is_the_transfer_from_the_network(
    folder: Path, records: dict[tuple[str, str], Record], one: Path
) -> None:
    """Bit for bit; so the CRF's worst case is over its own gradient and the one that never saw it."""
    name, transferred = f"ifgsm-{BUDGET}", f"transfer-from-glow-{BUDGET}"
    files = [delivered(folder, one, v, name).x for v in ("glow", "by-passed")]
    assert torch.equal(*files)
    assert torch.equal(delivered(folder, one, "crf", transferred).x, files[0])
    assert records["crf", transferred].scores == records["by-passed", name].scores
    assert (folder / "records" / "crf" / f"transfer-ifgsm-from-by-passed-{BUDGET}").is_dir()


@pytest.mark.usefixtures("no_report")
def test_a_study_that_does_not_ask_has_other_records(one: Path, tmp_path: Path) -> None:
    silent = every_record(go(small(one), tmp_path / "silent").folder)
    asked = every_record(go(small(one, certainty=True), tmp_path / "asked").folder)
    assert all(record.certainty is None and "certainty" not in record.inputs for record in silent)
    assert all(record.certainty is not None for record in asked)
    assert {record.key for record in silent}.isdisjoint(record.key for record in asked)
    scores = [{(r.condition, r.case): r.scores for r in records} for records in (silent, asked)]
    assert scores[0] == scores[1]


def test_void_is_not_counted_and_a_picture_of_nothing_tells_none() -> None:
    scheme = LabelScheme("shapes", {"background": 0, "disc": 1}, void=255)
    victim = Segmenter(torch.nn.Identity(), Softmax(scheme), ("a", "b"), Unchanged())
    x = torch.zeros(1, 2, 4, 4)
    x[:, 1, :, 2:] = 9.0
    truth = torch.zeros(1, 4, 4, dtype=torch.int64)
    truth[..., 2:] = 255
    told = SEGMENTATION.certainty(victim, x, truth)
    assert told is not None
    assert told["confidence"] == 0.5
    assert told["lead"] == 0
    assert SEGMENTATION.certainty(victim, x, torch.full_like(truth, 255)) is None


def test_nobody_asks_a_detector() -> None:
    assert DETECTION.certainty(network(), torch.zeros(1, 3, 4, 4), [Objects.none(2)]) is None
