"""The README's code runs as it stands, and no page links to a file that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flaxcnn

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it writes a file
    text = (ROOT / "README.md").read_text()
    training, conversion = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(training, "README.md, training", "exec", dont_inherit=True), names)
    assert names["logits"].shape == (8, 10) and np.isfinite(names["logits"]).all()
    assert np.isfinite(names["metrics"]["loss"])

    given = names["state_dict"] = flaxcnn.to_torch(names["model"], names["state"].variables)
    exec(compile(conversion, "README.md, conversion", "exec", dont_inherit=True), names)
    assert (tmp_path / "model.pth").is_file()
    back = names["state_dict"]
    assert back is not given and back.keys() == given.keys()
    for key, value in given.items():
        np.testing.assert_array_equal(back[key], value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not broken, f"{page.name} links to what is not there: {', '.join(broken)}"
