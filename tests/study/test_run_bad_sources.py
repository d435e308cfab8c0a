"""Bad cases in the middle of each kind of source cost themselves: the others are as if they had not been there."""

from __future__ import annotations

from pathlib import Path

import pytest
from study.identities import REFUSED, SOURCES, study_of
from study.small_study import quarantine, records, tables

from medadv.study.run import run


@pytest.mark.parametrize("kind", SOURCES)
def test_bad_cases_of_every_source_cost_themselves(kind: str, tmp_path: Path, no_report: None) -> None:
    """Gapped series, torn NRRD, MHA and NIfTI, missing labels and channels, stray files, twins."""
    whole, damaged = (
        run(study_of(kind, tmp_path / word, bad=word == "damaged"), runs=tmp_path / word / "runs", tracked=False)
        for word in ("whole", "damaged")
    )
    assert (whole.scored, whole.quarantined) == (2, 0)
    assert (damaged.scored, damaged.quarantined) == (2, len(REFUSED[kind]))
    assert sorted(quarantine(damaged.folder).values()) == REFUSED[kind]
    assert records(damaged.folder) == records(whole.folder)
    assert tables(damaged.folder) == tables(whole.folder)
    assert len(records(whole.folder)) == 4
