"""How the report spells numbers: shares without a leading zero, p-values and amounts with their units."""

from __future__ import annotations

from collections.abc import Callable

from medadv.attack.budget import Budget
from medadv.study.metrics import Metric
from medadv.study.results import Arm

MINUS = "−"
NOTHING = "–"


def decimal(value: float | int | None, digits: int) -> str:
    """A number with a fixed number of decimals and a true minus sign; a dash for None."""
    if value is None:
        return NOTHING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def share(value: float | None) -> str:
    """A number that cannot leave −1 … 1, such as Dice: ``.92``; a third decimal below a tenth: ``−.003``."""
    return _pointed(decimal(value, 3 if value and abs(value) < 0.0995 else 2))


def thousandths(value: float | None) -> str:
    """The same for the columns of a table: always three decimals, ``.921``."""
    return _pointed(decimal(value, 3))


def hundredths(value: float | None) -> str:
    """The same for a limit that somebody chose: always two decimals, ``.05``."""
    return _pointed(decimal(value, 2))


def _pointed(text: str) -> str:
    return text.replace("0.", ".", 1) if text.lstrip(MINUS).startswith("0.") else text


def percent(value: float | None) -> str:
    """A share in percent: ``66 %``."""
    return NOTHING if value is None else f"{decimal(100 * value, 0)} %"


def points(value: float | None) -> str:
    """A share in percent with one decimal, for columns that say %, as tables of mIoU and mAP have it: ``48.0``."""
    return decimal(None if value is None else 100 * value, 1)


def whole(value: float | int | None) -> str:
    """A count."""
    return decimal(value, 0)


def tenth(value: float | None) -> str:
    """A number with one decimal: millimetres, decibels, seconds."""
    return decimal(value, 1)


def significant(value: float | None) -> str:
    """Three significant digits, for amounts of any size: ``17.2``, ``0.000131``, ``12 400``."""
    if value is None:
        return NOTHING
    if abs(value) < 1000:
        return f"{value:.3g}".replace("-", MINUS)
    return f"{float(f'{value:.3g}'):,.0f}".replace(",", "\u202f").replace("-", MINUS)


def probability(value: float | None) -> str:
    """A p-value as a table shows it: ``.018``, ``.0005``, ``< .0001``."""
    if value is None:
        return NOTHING
    if value < 0.0001:
        return "< .0001"
    text = f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}" if value >= 0.001 else f"{value:.4f}"
    return text.removeprefix("0")


def equals(value: float | None) -> str:
    """A p-value as a sentence says it: ``= .018``, ``< .0001``."""
    text = probability(value)
    return text.replace(" ", "\N{NO-BREAK SPACE}") if text.startswith("<") else f"=\N{NO-BREAK SPACE}{text}"


def measured(value: float | None, metric: Metric) -> str:
    """A score, or a difference of scores, in its metric's spelling: Dice as a share, a distance in mm."""
    return f"{tenth(value)}\N{NO-BREAK SPACE}{metric.unit}" if metric.unit and value is not None else share(value)


def in_column(metric: Metric) -> Callable[[float | None], str]:
    """How the column of a table spells scores of a metric."""
    return tenth if metric.unit else thousandths


def budget(arm: Arm) -> str:
    """The budget of an arm, ``0.1 σ`` or ``0.1/0.2/0.1/0.3 σ``; of steps alone ``γ 0.5 of 0–255 a step``; empty without
    one."""
    if arm.presented.budget is None:
        return ""
    amounts, _, unit = str(Budget.parse(arm.presented.budget)).partition(" ")
    told = f"{amounts}\N{NO-BREAK SPACE}{spelled(unit)}"
    return f"γ\N{NO-BREAK SPACE}{told} a step" if arm.step_bounded else told


def titled(arm: Arm) -> str:
    """An arm's title with its budget: ``i-FGSM, 10 steps, 0.1 σ``."""
    return f"{arm.presented.title}, {budget(arm)}" if arm.presented.budget else arm.presented.title


def spelled(unit: str) -> str:
    """A unit of budgets for people."""
    return UNITS[unit]


UNITS = {"sigma": "σ", "stored": "stored units", "p1-p99": "of p1–p99", "minmax": "of min–max", "0-255": "of 0–255"}
