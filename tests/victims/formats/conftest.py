"""Trained models, made once by the libraries whose formats they are in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from victims.formats.nnunet_model import Recipe, train


@pytest.fixture(scope="session")
def nnunet(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """The trained-model folder of a recipe, trained where it is first asked for."""
    made: dict[str, Path] = {}

    def folder(recipe: Recipe) -> Path:
        if recipe.name not in made:
            before = dict(os.environ)
            made[recipe.name] = train(recipe, tmp_path_factory.mktemp(recipe.name))
            os.environ.clear()
            os.environ.update(before)
        return made[recipe.name]

    return folder
