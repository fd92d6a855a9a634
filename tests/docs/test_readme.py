"""What the README's code comes to."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flaxcnn

ROOT = Path(__file__).parents[2]


def test_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it writes a file
    text = (ROOT / "README.md").read_text()
    training, conversion = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(training, "README.md, training", "exec", dont_inherit=True), names)
    assert names["logits"].shape == (8, 10) and np.isfinite(names["logits"]).all()
    assert np.isfinite(names["metrics"]["loss"])

    exec(compile(conversion, "README.md, conversion", "exec", dont_inherit=True), names)
    assert (tmp_path / "model.pth").is_file()
    back = flaxcnn.to_torch(names["model"], names["variables"])
    assert back.keys() == names["state_dict"].keys()
    for key, value in names["state_dict"].items():
        np.testing.assert_array_equal(back[key], value)


def test_speed() -> None:
    """The page's geometric means."""
    means = re.search(
        r"^\| geometric mean \| (\S+) \| \S+ \| \S+ \| (\S+) ", (ROOT / "docs" / "speed.md").read_text(), re.MULTILINE
    )
    quoted = re.search(
        r"inference took (\S+) of\s+PyTorch's time over twelve networks and training (\S+),",
        (ROOT / "README.md").read_text(),
    )
    assert means and quoted and quoted.groups() == means.groups()


@pytest.mark.parametrize("page", ["speed.md", "speed.zh.md"])
def test_speed_tables(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are what the program writes from the measurements."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    speed_tables = import_module("speed_tables")
    results, text = json.loads((ROOT / "docs" / "speed.json").read_text()), (ROOT / "docs" / page).read_text()
    assert text == speed_tables.with_tables(text, results, speed_tables.MEANS[page])
    results["training"]["resnet18"]["flaxcnn"]["milliseconds"] = [1.0] * 9
    results["training"]["resnet18"]["torch"]["milliseconds"] = [4.0] * 9
    results["training"]["resnet18"]["torch-compile"]["milliseconds"] = [5.0] * 9
    results["training"]["resnet18"]["xla"]["milliseconds"] = [8.0] * 9
    results["training"]["resnet18"]["flaxcnn"] |= {"compile_seconds": 77, "peak_mib": 30, "steps_mib": 20}
    results["training"]["resnet18"]["torch"] |= {"peak_mib": 30, "steps_mib": 40}
    changed = speed_tables.with_tables(text, results, speed_tables.MEANS[page])
    assert " | 0.25 | 0.20 | 0.12 |" in changed
    assert "| resnet18 | 77 | " in changed and " | 0.75 | 0.50 |" in changed
    with pytest.raises(ValueError, match="two tables"):
        speed_tables.with_tables(text.replace("|---", "---"), results, speed_tables.MEANS[page])
