"""The code of docs/data.md runs, and its view is the loader's."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import flaxcnn
from flaxcnn.data import TrainTransform, digits, train_batches


def test_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    source = digits("val")
    with closing(train_batches(source, TrainTransform(224), batch_size=64, seed=3, num_threads=1)) as batches:
        shown = [next(batches) for _ in range(7)]  # an epoch has five
    names: dict[str, Any] = {"flaxcnn": flaxcnn, "source": source, "seed": 3, "step": 6, "row": 17}
    exec(compile(code, "docs/data.md", "exec", dont_inherit=True), names)
    np.testing.assert_array_equal(names["pixels"], shown[6]["image"][17])
