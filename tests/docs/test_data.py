"""The code of docs/data.md runs, and its view is the loader's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

import flaxcnn
from flaxcnn.data import TrainTransform, digits, train_batches


def test_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    source = digits("val")
    batches = train_batches(source, TrainTransform(224), batch_size=1, seed=3, num_threads=1)
    first = next(batches)
    batches.close()
    index = int(np.random.default_rng([3, 0, len(source)]).permutation(len(source))[0])  # the first of the first epoch
    names: dict[str, Any] = {"flaxcnn": flaxcnn, "source": source, "seed": 3, "epoch": 0, "index": index}
    exec(compile(code, "docs/data.md", "exec", dont_inherit=True), names)
    np.testing.assert_array_equal(names["pixels"], first["image"][0])
