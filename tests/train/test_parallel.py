"""One, many and mapped devices, and several processes: the number of either is fixed when JAX starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from flaxcnn import create_model, optim
from flaxcnn.layers import BatchNorm
from flaxcnn.train import create_state
from flaxcnn.train.checkpoint import Checkpoints
from tests.train.tiny import Tiny, assert_close, make_variables
from tests.variants import FAMILIES, small_size

ROOT = Path(__file__).parents[2]


def environment(devices: int) -> dict[str, str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    # As the train command sets it: threads for all devices that wait for each other.
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", "NPROC": "64"}


@pytest.mark.slow
def test_eight_devices() -> None:
    words = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/train/eight_devices.py"]
    result = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment(8), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def run_processes(folder: Path, count: int, arrangement: str = "jit") -> list[dict]:
    """Run `one_of_many.py` in so many processes, of four devices together."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.one_of_many", *map(str, (index, count, port, folder, arrangement))],
            cwd=ROOT,
            env=environment(4 // count),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, "\n".join(outputs)
    return [json.loads((folder / f"{index}.json").read_text()) for index in range(count)]


def final_state(folder: Path, index: int) -> list[np.ndarray]:
    """Parameters, statistics and the optimiser's state of a process, as it held them."""
    with np.load(folder / f"{index}.npz") as leaves:
        return list(leaves.values())


def restored(folder: Path):
    """The checkpoint, read here: in float32."""
    model = Tiny()
    like = create_state(model, optim.sgd(0.1, momentum=0.9), make_variables(model))
    return Checkpoints(folder / "checkpoints", read_only=True).restore_variables(3, like.variables)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("alone") / "one"
    return folder, run_processes(folder, 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize("arrangement", ["jit", "fsdp", "pmap"])
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_are_as_one(
    tmp_path: Path, one_process: tuple[Path, dict], count: int, arrangement: str
) -> None:
    alone, one = one_process
    many = run_processes(tmp_path / "many", count, arrangement)
    assert one["result"]["examples"] == 8 + 7 + 6
    for each in many:
        assert each["result"] == pytest.approx(one["result"], rel=1e-9)
        assert each["reason"] == 15
        assert each["stopped_at"] == 6  # two questions after the last process said so
    expected = final_state(alone, 0)
    assert sum(leaf.dtype == np.float64 for leaf in expected) >= 2 * 6  # parameters and momenta at the least
    for index in range(count):
        assert_close(final_state(tmp_path / "many", index), expected, rtol=1e-10, atol=1e-14)
    assert_close(restored(tmp_path / "many"), restored(alone), rtol=1e-6)
    assert np.isfinite(one["result"]["loss"])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_norm_knows_the_axis(name: str) -> None:
    model = create_model(name, num_classes=2, axis_name="data")
    axes = []

    def look(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm):
            axes.append(context.module.axis_name)
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((2, *small_size(name), 3), np.float32)
    with nn.intercept_methods(look):
        variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    assert set(axes) == ({"data"} if "batch_stats" in variables else set())
