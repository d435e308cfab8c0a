"""Trained models, made once by the libraries whose formats they are in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from victims.formats.nnunet_model import ISOTROPIC, Recipe, train

Edit = Callable[[dict[str, Any]], object]


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


def unchanged(content: dict[str, Any]) -> None:
    """No edit."""


@pytest.fixture
def copied(nnunet: Callable[[Recipe], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a trained folder with edits, made alike in the files and in what the checkpoint says of them."""

    def copy(recipe: Recipe = ISOTROPIC, plans: Edit = unchanged, dataset: Edit = unchanged, **one: Edit) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(nnunet(recipe), folder)
        for name, edit in (("plans.json", plans), ("dataset.json", dataset)):
            content = json.loads((folder / name).read_text())
            edit(content)
            (folder / name).write_text(json.dumps(content))
        for path in folder.glob("fold_*/checkpoint_final.pth"):
            checkpoint = torch.load(path, weights_only=False)
            plans(checkpoint["init_args"]["plans"])
            dataset(checkpoint["init_args"]["dataset_json"])
            one.get(path.parent.name, unchanged)(checkpoint)
            torch.save(checkpoint, path)
        return folder

    return copy
