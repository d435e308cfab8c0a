"""``Budget``: how much may change, as an amount in a unit, resolved for each case and modality into stored units.

There is no convention for MR intensities: 8/255 of the range is a different thing in every scan, and one hot voxel
changes it. The unit of medadv is σ; every record also carries the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medadv.errors import BudgetError


class Unit(StrEnum):
    """The units of a budget.

    ``SIGMA``: standard deviations of the modality inside the clean support of the case. ``STORED``: the file's own
    units. ``PERCENTILE``: shares of p1 to p99 of the support. ``MINMAX``: shares of its minimum to maximum. ``GREY``:
    steps of which 255 span the legal range, or the support's minimum to maximum where there is none.
    """

    SIGMA = "sigma"
    STORED = "stored"
    PERCENTILE = "p1-p99"
    MINMAX = "minmax"
    GREY = "0-255"


_SPELLINGS = {"σ": Unit.SIGMA, "sd": Unit.SIGMA, "percentile": Unit.PERCENTILE, "255": Unit.GREY, "grey": Unit.GREY}
_UNITS: dict[str, Unit] = {u.value: u for u in Unit} | _SPELLINGS


@dataclass(frozen=True)
class Budget:
    """An amount of change in a unit.

    Attributes:
        amount: one amount for all modalities, or one each, in channel order; a list becomes a tuple.
        unit: what it is measured in; its name will do.

    Raises:
        BudgetError: an amount that is no number, not finite or negative, or an unknown unit.
    """

    amount: float | tuple[float, ...]
    unit: Unit = Unit.SIGMA

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", _numbers(self.amount))
        if str(self.unit).lower() not in _UNITS:
            raise BudgetError("there is no such unit", got=self.unit, expected=f"one of {[u.value for u in Unit]}")
        object.__setattr__(self, "unit", _UNITS[str(self.unit).lower()])
        for amount in self.amounts:
            if not (math.isfinite(amount) and amount >= 0):
                raise BudgetError(
                    "a budget is a finite amount that is not negative", got=amount, expected="for example 0.1 sigma"
                )

    @property
    def amounts(self) -> tuple[float, ...]:
        """The amounts, as a tuple of one or of one a modality."""
        return self.amount if isinstance(self.amount, tuple) else (self.amount,)

    @classmethod
    def parse(cls, text: str | float | Budget) -> Budget:
        """Read ``"0.1 sigma"``, ``"20 stored"``, ``"0.02 p1-p99"``, ``"8 0-255"``, or a bare number of σ.

        One amount a modality is written ``"0.1/0.2/0.1/0.3 sigma"``, always with its unit: without one, ``"8/255"``
        would be two amounts of σ to us and a fraction to whoever wrote it.

        Raises:
            BudgetError: no number, an unknown unit, or several amounts without a unit.
        """
        if isinstance(text, Budget):
            return text
        number = r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?"
        match = re.fullmatch(rf"\s*({number}(?:/{number})*)\s*(\S*)\s*", str(text), re.IGNORECASE)
        name = match[2].lower() if match else ""
        try:
            amounts = tuple(float(n) for n in match[1].split("/")) if match else ()
        except ValueError:
            amounts = ()
        if not amounts or name not in {"", *_UNITS}:
            raise BudgetError(
                "this is no budget",
                got=text,
                expected=f"a number and a unit out of {[u.value for u in Unit]}",
                advice='write for example "0.1 sigma"',
            )
        if len(amounts) > 1 and not name:
            grey = amounts[1:] == (255,)
            raise BudgetError(
                "several amounts, one a modality, need their unit",
                got=text,
                cause="a fraction of 255 grey levels, as for photographs" if grey else None,
                advice=f'write "{amounts[0]:g} 0-255"' if grey else f'write "{str(text).strip()} sigma"',
            )
        return cls(amounts if len(amounts) > 1 else amounts[0], _UNITS[name or Unit.SIGMA])

    def __str__(self) -> str:
        # The short spelling where it says the same number: 8 and not 8.0.
        amounts = [f"{a:g}" if float(f"{a:g}") == a else repr(float(a)) for a in self.amounts]
        return f"{'/'.join(amounts)} {self.unit}"

    def scaled(self, factor: float) -> Budget:
        """The same budget, so many times."""
        amounts = tuple(a * factor for a in self.amounts)
        return replace(self, amount=amounts if isinstance(self.amount, tuple) else amounts[0])

    def resolve(self, scales: Scales) -> Float[Tensor, "b c"]:
        """The budget in stored units, for each sample and modality, float64.

        Raises:
            BudgetError: there is not one amount for each modality.
        """
        unit = scales.of(self.unit)
        if len(self.amounts) not in (1, unit.shape[1]):
            raise BudgetError(
                "the budget has another number of modalities than the image",
                got=len(self.amounts),
                expected=f"one amount, or {unit.shape[1]}",
            )
        return unit * unit.new_tensor(self.amounts)


def _numbers(amount: object) -> float | tuple[float, ...]:
    """One number, or a tuple of them."""
    try:
        if isinstance(amount, str):
            raise TypeError
        return tuple(map(float, amount)) if isinstance(amount, Sequence) else float(amount)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise BudgetError(
            "the amount of a budget is a number, or one a modality",
            got=repr(amount),
            expected="for example Budget(0.1), or Budget((0.1, 0.2), Unit.SIGMA)",
            advice='texts are read by Budget.parse("0.1 sigma")',
        ) from None


@dataclass(frozen=True, eq=False)
class Scales:
    """What one of each unit is worth in stored units, around the clean inputs of one batch.

    Attributes:
        x: the clean input ``(b, c, *s)``.
        support: where it may change.
        span: the range that 255 grey levels share, or None for the support's minimum to maximum.
    """

    x: Float[Tensor, "b c *s"]
    support: Bool[Tensor, "b c *s"]
    span: tuple[float, float] | None = None

    def of(self, unit: Unit) -> Float[Tensor, "b c"]:
        """One of this unit in stored units, float64; zero where a modality has no support."""
        measures: dict[Unit, Callable[[Tensor], Tensor]] = {
            Unit.SIGMA: lambda v: v.std(correction=0),
            Unit.STORED: lambda v: v.new_ones(()),
            Unit.PERCENTILE: lambda v: _quantile(v, 0.99) - _quantile(v, 0.01),
            Unit.MINMAX: lambda v: v.max() - v.min(),
            Unit.GREY: lambda v: self._span(v) / 255,
        }
        measure = measures[unit]
        rows = []
        for sample, mask in zip(self.x, self.support, strict=True):
            voxels = [channel[where].double() for channel, where in zip(sample, mask, strict=True)]
            rows.append(torch.stack([measure(v) if v.numel() else v.new_zeros(()) for v in voxels]))
        return torch.stack(rows)

    def _span(self, voxels: Tensor) -> Tensor:
        if self.span is None:
            return voxels.max() - voxels.min()
        return voxels.new_tensor(self.span[1] - self.span[0])

    def equivalents(self, radius: Float[Tensor, "b c"]) -> dict[Unit, Float[Tensor, "b c"]]:
        """One radius in stored units, told in every unit."""
        worth = {unit: self.of(unit) for unit in Unit}
        return {unit: torch.where(one > 0, radius / one, torch.zeros_like(radius)) for unit, one in worth.items()}


def _quantile(values: Float[Tensor, "n"], q: float) -> Float[Tensor, ""]:
    """Linear interpolation, as ``torch.quantile``, which refuses more than 2**24 values."""
    place = q * (values.numel() - 1)
    low = math.floor(place)
    ordered = values.sort().values
    high = min(low + 1, values.numel() - 1)
    return torch.lerp(ordered[low], ordered[high], place - low)
