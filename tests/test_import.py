"""`import flaxcnn` stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "tensorflow", "matplotlib", "PIL", "grain", "orbax", "sklearn", "tyro")


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_loads_nothing_heavy() -> None:
    loaded = loaded_by("import flaxcnn; flaxcnn.create_model('resnet18')")
    assert "flaxcnn" in loaded
    assert not loaded.intersection(HEAVY)


def test_modules_are_there_when_they_are_asked_for() -> None:
    assert {"grain", "tyro"} <= loaded_by("import flaxcnn; flaxcnn.data.train_batches; flaxcnn.build.build_model")
    assert not loaded_by("import flaxcnn; hasattr(flaxcnn, 'nonsense')").intersection(HEAVY)
    import flaxcnn

    assert flaxcnn.data is sys.modules["flaxcnn.data"]
    with pytest.raises(AttributeError, match="module 'flaxcnn' has no attribute 'nonsense'"):
        _ = flaxcnn.nonsense


def test_so_does_importing_the_parts_of_training() -> None:
    modules = ("optim", "losses", "metrics", "train", "inference", "data", "visual.curves")
    loaded = loaded_by("; ".join(f"import flaxcnn.{module}" for module in modules))
    assert not loaded.intersection(HEAVY)
