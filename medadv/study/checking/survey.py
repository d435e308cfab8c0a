"""All cases of a data set through the gate, and what those that passed hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from medadv.data.case import Cohort, Refusal
from medadv.errors import CaseError
from medadv.labels import LabelScheme
from medadv.study.checking.facts import Facts, facts_of
from medadv.study.cohort import file_names
from medadv.study.inputs import read_labelled
from medadv.study.names import Names
from medadv.study.progress import Watch


@dataclass(frozen=True)
class Survey:
    """What a data set holds.

    Attributes:
        title: what the data set is called.
        assumed: what was declared of it, and by whom; a line each.
        facts: the cases that can be used.
        refused: those that a run would put in quarantine.
        pseudonymous: whether ids are pseudonyms here.
    """

    title: str
    assumed: Sequence[str]
    facts: Sequence[Facts]
    refused: Sequence[Refusal]
    modalities: tuple[str, ...]
    scheme: LabelScheme
    pseudonymous: bool = False

    def under(self, names: Names, cohort: Cohort) -> Survey:
        """The same with every id under its pseudonym; strata and the name of the data set's folder stay."""
        ids = {c.case for c in cohort.cases} | {c.patient for c in cohort.cases if c.patient}
        ids |= {name for refusal in self.refused for name in (refusal.case, *refusal.names)}
        words = {name: names[name] for name in ids} | file_names(cohort.cases, names)
        return replace(
            self,
            title=names.disguised(self.title, words),
            assumed=[names.disguised(line, words) for line in self.assumed],
            facts=[replace(f, case=names[f.case], patient=f.patient and names[f.patient]) for f in self.facts],
            refused=[Refusal(names[r.case], r.reason, names.disguised(r.message, words)) for r in self.refused],
            pseudonymous=True,
        )


def survey(title: str, assumed: Iterable[str], cohort: Cohort, watch: Watch) -> Survey:
    """Read every case once, one in memory at a time.

    Args:
        title: what the data set is called.
        assumed: what was declared of it.
        cohort: what an importer found.
        watch: told of the reading.
    """
    facts: list[Facts] = []
    refused = list(cohort.refused)
    watch.task("check", len(cohort.cases))
    # One after the other: two threads that inflate files in small pieces wait for each other, and gain nothing.
    for case in cohort.cases:
        try:
            facts.append(facts_of(read_labelled(case)))
        except CaseError as error:
            refused.append(Refusal(case.case, error.reason, str(error), error.names))
        watch.step()
    return Survey(title, tuple(assumed), facts, refused, cohort.modalities, cohort.scheme)
