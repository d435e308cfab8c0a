"""Sections of a study: how its cases are divided, how defences are attacked, which files stay."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medadv.study.defences import Temperature
from medadv.study.specified import Specified, readable_budgets

Number = Annotated[int, Field(ge=0)]


class Split(Specified):
    """Which patients train, choose the checkpoint, and are attacked.

    Patients are put in the order of a seeded hash of their ids, so that one case more or less changes no order.
    ``train`` and ``validate`` are numbers of patients (of cases where patients are unknown) from the front of that
    order; ``test`` is a number of those that follow, or ``rest``. Lists of case ids instead name them.

    With ``folds`` every case is tested, by the victim of a cross-validation that has not seen it: folds of whole
    patients are made (a number), or are those that the ``data`` set declares; ``validate`` patients of each fold's
    training cases choose the checkpoint.
    """

    train: Number | tuple[str, ...] = 0
    validate_: Number | tuple[str, ...] = Field(0, alias="validate")
    test: Number | Literal["rest"] | tuple[str, ...] = "rest"
    folds: Annotated[int, Field(ge=2)] | Literal["data"] | None = None

    @model_validator(mode="after")
    def _folds_alone(self) -> Split:
        if self.folds is not None and (self.train != 0 or self.test != "rest" or isinstance(self.validate_, tuple)):
            raise ValueError("folds divide all cases: give folds and a number of patients to validate, and no more")
        return self


class Adaptive(Specified):
    """What a study with a defence runs beside its own attacks: the same attack on other losses, and transferred ones.

    The loss at logits / T for every T of the study, the logit margin, what was found for the undefended victim and the
    teacher, and sign noise. Every judged victim meets them all; what is transferred is shown to defended ones alone.
    """

    attack: str | None = Field(
        None, description="the attack that is varied; the untargeted one of most steps if left out"
    )
    budgets: tuple[str, ...] | None = Field(None, min_length=1, description="the primary ones if left out")
    temperatures: tuple[Temperature, ...] = Field((), description="T beside those of the study's distillations")

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if budgets is None else readable_budgets(budgets)


class Volumes(Specified):
    """Which adversarial files stay when a case is done: the ``worst`` few a condition, ``all`` or ``none``."""

    keep: Literal["worst", "all", "none"] = "worst"
    count: int = Field(1, ge=1)
