"""What everything that a user writes has in common."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from medadv.attack.budget import Budget
from medadv.errors import BudgetError


class Specified(BaseModel):
    """What a user writes: every key known, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def readable_budgets(budgets: Sequence[str]) -> tuple[str, ...]:
    """Budgets in one spelling, so that "0.1sigma" and "0.1 sigma" are the same condition."""
    try:
        spelled = tuple(str(Budget.parse(budget)) for budget in budgets)
    except BudgetError as error:
        raise ValueError(str(error)) from error
    if len(set(spelled)) < len(spelled):
        raise ValueError(f"a budget is given twice: {list(spelled)}")
    return spelled


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names in one order, so that the same set is the same condition however it is written."""
    if len(set(names)) < len(names):
        raise ValueError(f"a name is given twice: {list(names)}")
    return tuple(sorted(names))
