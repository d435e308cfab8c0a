"""A survey as a page that needs no other file, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from medadv.atomic import write_text
from medadv.study.checking import tables
from medadv.study.checking.remarks import remarks
from medadv.study.checking.survey import Survey
from medadv.study.report.sheet import pages, sheet


def write_page(survey: Survey, path: Path) -> None:
    """Write the page.

    Raises:
        RunError: it cannot be written.
    """
    css, policy = sheet()
    template = pages("checking").get_template("check.html.j2")
    page = template.render(
        survey=survey,
        summary=tables.summary(survey),
        remarks=remarks(survey),
        cases=tables.grids_and_labels(survey),
        modalities=[tables.of_modality(survey, modality) for modality in survey.modalities],
        css=css,
        policy=policy,
    )
    write_text(path, page)


def write_json(survey: Survey, path: Path) -> None:
    """Write everything that is known, for programs.

    Raises:
        RunError: it cannot be written.
    """
    content = {
        "data": survey.title,
        "pseudonymous": survey.pseudonymous,
        "assumed": list(survey.assumed),
        "modalities": list(survey.modalities),
        "scheme": {"name": survey.scheme.name, "numbers": dict(survey.scheme.numbers)},
        "summary": dict(tables.summary(survey)),
        "remarks": [asdict(remark) for remark in remarks(survey)],
        "quarantined": [
            {"case": refusal.case, "reason": str(refusal.reason), "message": refusal.message}
            for refusal in survey.refused
        ],
        "cases": [asdict(facts) for facts in survey.facts],
    }
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
