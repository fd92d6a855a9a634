"""`import flaxcnn` stays light."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "tensorflow", "matplotlib", "PIL", "grain", "orbax", "sklearn", "tyro")


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_loads_nothing_heavy() -> None:
    loaded = loaded_by("import flaxcnn; flaxcnn.create_model('resnet18')")
    assert "flaxcnn" in loaded
    assert not loaded.intersection(HEAVY)


def test_so_does_importing_the_parts_of_training() -> None:
    modules = ("optim", "losses", "metrics", "train", "inference", "data", "visual.curves")
    loaded = loaded_by("; ".join(f"import flaxcnn.{module}" for module in modules))
    assert not loaded.intersection(HEAVY)
