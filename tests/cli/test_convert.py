"""`convert` in all directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flaxcnn import create_model, save_weights
from flaxcnn.cli.main import script
from flaxcnn.models import abstract_variables
from flaxcnn.weights import read_weights

KINDS = {"pth": "w.pth", "safetensors": "w.safetensors", "orbax": "w"}


@pytest.fixture
def saved(tmp_path: Path) -> dict[str, np.ndarray]:
    """A LeNet of 10 classes in a file of each kind, in float64."""
    random = np.random.default_rng(0)
    model = create_model("lenet", num_classes=10)
    variables: Any = jax.tree.map(lambda a: random.normal(size=a.shape), abstract_variables(model))
    for file in KINDS.values():
        save_weights(model, variables, tmp_path / file)
    return read_weights(tmp_path / "w.pth").state_dict


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_converts_bit_for_bit(
    tmp_path: Path, saved: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str], source: str, target: str
) -> None:
    out = tmp_path / "out" / KINDS[target]
    arguments = ["--model", "lenet", str(tmp_path / KINDS[source]), str(out)]
    assert script("convert", arguments) == 0
    converted = read_weights(out).state_dict
    assert converted.keys() == saved.keys()
    for key, array in saved.items():
        assert converted[key].dtype == np.float64
        np.testing.assert_array_equal(converted[key], array)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"read {tmp_path / KINDS[source]}: ")
    assert printed[0].endswith(", 10 classes, channels 3")
    assert printed[1] == f"wrote {out}: 10 arrays, 121,182 numbers, float64"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "lenet", "--num-classes", "3", "w.pth", "out.pth"],
            "fc3.bias has shape (10,), the model's is (3,)",
        ),
        (
            ["--model", "lenet", "--num-classes", "-3", "w.pth", "out.pth"],
            "--model: num_classes must be a whole number",
        ),
        (["--model", "resnet18", "w.pth", "out.pth"], "missing bn1.bias"),
        (["--model", "lenett", "w.pth", "out.pth"], "did you mean lenet"),
        (["w.pth", "out.pth"], "--model NAME is needed"),
        (["--model", "lenet", "absent.pth", "out.pth"], "there is no file absent.pth"),
        (["--model", "lenet", "w.pth", "out.onnx"], "out.onnx ends neither in .pth"),
        (["--model", "lenet", "w.pth", "w"], "w exists"),
        (["--model", "lenet", "w.pth", "w.pth"], "w.pth exists; remove it"),
        (["--model", "lenet", "w.pth", "w.pth/x"], "cannot write w.pth/x: Not a directory"),
        (["--model", "lenet", "w.pth", "/proc/x.pth"], "cannot write /proc/x.pth: "),
        (["--model", "lenet", "--entry", "ema", "w.pth", "out.pth"], "no entry 'ema'"),
    ],
)
def test_a_mistake_ends_in_one_line(
    tmp_path: Path,
    saved: dict[str, np.ndarray],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert script("convert", arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not Path("out.pth").exists()
