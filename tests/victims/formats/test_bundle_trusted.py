"""A bundle that is trusted runs as MONAI runs it; and of one that is not, the lambda that paints is read, not run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from victims.formats.written_bundle import RELABEL, brats, described, of_tissues, scan, write

from medadv.errors import VictimError
from medadv.victims.formats.bundle import format as bundle
from medadv.victims.formats.bundle.answer import Painting

# What is trusted


def test_a_trusted_bundle_may_compute_its_settings(tmp_path: Path) -> None:
    config = brats()
    config["inferer"]["roi_size"] = "$[2 * 4] * 3"
    root = write(tmp_path, config)
    config["network_def"]["_target_"] = "scripts.nets.Own"
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    (root / "scripts").mkdir()
    (root / "scripts" / "__init__.py").touch()
    (root / "scripts" / "nets.py").write_text("from monai.networks.nets import SegResNet\nclass Own(SegResNet): pass\n")
    victim = bundle.load(root, None, trust=True)
    assert type(victim.network).__name__ == "Own"
    assert victim.inference.roi == (8, 8, 8)
    before = victim.deployed.describe()
    (root / "scripts" / "nets.py").write_text("from monai.networks.nets import SegResNet\nclass Own(SegResNet): 1\n")
    again = bundle.load(root, None, trust=True)
    assert again.deployed.describe() != before
    assert type(again.network) is not type(victim.network)
    with pytest.raises(VictimError, match=r"inferer\.roi_size"):
        bundle.load(root, None, trust=False)


def test_what_has_no_gradient_is_named_even_where_it_is_trusted(tmp_path: Path) -> None:
    config = brats()
    config["preprocessing"]["transforms"].append({"_target_": "MedianSmoothd", "keys": "image"})
    with pytest.raises(VictimError, match=r"differentiated at preprocessing\.transforms\.2\._target_") as refusal:
        bundle.load(write(tmp_path, config), None, trust=True)
    assert "--trust" not in str(refusal.value)


def test_code_that_fails_is_told_by_its_key(tmp_path: Path) -> None:
    config = brats()
    config["inferer"]["overlap"] = "$missing_name"
    with pytest.raises(VictimError, match=r"MONAI cannot run the bundle at inferer\.overlap"):
        bundle.load(write(tmp_path, config), None, trust=True)


def test_a_program_alone_needs_trust(tmp_path: Path) -> None:
    config = of_tissues()
    root = write(tmp_path, config, described(outputs=("background", "edema", "ncr", "et")))
    before = bundle.load(root, None, trust=False)
    (root / "models" / "model.pt").unlink()
    with pytest.warns(FutureWarning, match="script"):
        torch.jit.script(before.network).save(root / "models" / "model.ts")
    with pytest.raises(VictimError, match="no weights that can be read as data") as refusal:
        bundle.load(root, None, trust=False)
    assert "TorchScript" in refusal.value.details["got"]
    assert "--trust" in refusal.value.details["try"]
    x = scan(12, 12, 16)[None]
    assert torch.equal(bundle.load(root, None, trust=True).predict(x), before.predict(x))


# Lambdas that paint


@pytest.mark.parametrize(
    "text",
    [
        "lambda x: x",
        "$lambda x: __import__('os').abort()",
        "$lambda x: torch.where(x[[0]] > 0, __import__('os').abort(), 0)",
        "$lambda x: torch.where(x[[0]] > 0, 1, x)",
        "$lambda x: torch.where(y[[0]] > 0, 1, 0)",
        "$lambda x: torch.where(x[[0]] > 0, 1, 0, out=x)",
        "$lambda x, y: torch.where(x[[0]] > 0, 1, 0)",
        "$lambda x: torch.where(x[[0]] > 0, True, 0)",
        "$lambda x: 3",
        "$" + "(" * 5000,
        "$\0",
    ],
)
def test_a_lambda_that_does_more_than_paint_is_not_read(text: str) -> None:
    assert Painting.read(text) is None


def test_a_painting_is_what_the_lambda_would_do() -> None:
    masks = torch.stack(torch.meshgrid(*[torch.tensor([0.0, 1.0])] * 3, indexing="ij"))
    written: Callable[[torch.Tensor], torch.Tensor] = eval(RELABEL[1:], {"torch": torch})  # a constant of this test
    painting = Painting.read(RELABEL)
    assert painting is not None
    assert torch.equal(painting(masks).long(), written(masks).long())
