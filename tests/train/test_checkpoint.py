"""Checkpoints: whole or not there, each of its own step."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn import create_model, optim
from flaxcnn.models import abstract_variables
from flaxcnn.train import create_state, make_train_step
from flaxcnn.train.checkpoint import CheckpointError, Checkpoints
from tests.train.tiny import Tiny, assert_identical, make_batch, make_variables

OPTIMIZER = optim.adam(1e-2)


def make_state(model=None, optimizer=OPTIMIZER, seed: int = 0):
    model = model or Tiny()
    return create_state(model, optimizer, make_variables(model, seed), seed=seed)


def filled(folder: Path, *, steps: dict[int, float | None], **options) -> Checkpoints:
    """Checkpoints of tiny states, step -> top-1 accuracy."""
    checkpoints = Checkpoints(folder, **options)
    for step, top1 in steps.items():
        metrics = None if top1 is None else {"top1": top1, "loss": 1.0}
        checkpoints.save(step, {"w": jnp.full(3, step)}, {"position": step}, metrics=metrics)
    return checkpoints


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = Tiny()
    state = make_state(model)
    step = jax.jit(make_train_step(model, OPTIMIZER))
    for seed in range(3):
        state, _ = step(state, make_batch(seed))
    checkpoints = Checkpoints(tmp_path / "c")
    progress = {"data": {"next": 3}, "window": {"loss": 0.1 + 0.2, "count": 8.0}, "evaluated": False}
    checkpoints.save(3, state, progress)
    checkpoints.close()

    again = Checkpoints(tmp_path / "c")
    assert again.latest() == 3
    restored, restored_progress = again.restore(3, make_state(model, seed=1))
    assert_identical(restored, state)
    assert restored_progress == progress
    assert_identical(again.restore_variables(3, abstract_variables(model)), state.variables)
    again.close()


def test_networks_without_statistics_come_back_too(tmp_path: Path) -> None:
    model = create_model("lenet", num_classes=3)
    state = make_state(model)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state, {})
    checkpoints.close()
    again = Checkpoints(tmp_path, read_only=True)
    assert_identical(again.restore(1, state)[0], state)
    assert_identical(again.restore_variables(1, abstract_variables(model))["params"], state.params)
    again.close()


def test_a_checkpoint_holds_the_values_of_its_own_step(tmp_path: Path) -> None:
    """Training goes on at once in the memory of the state that is still being written."""
    checkpoints = Checkpoints(tmp_path, keep=100)

    @jax.jit
    def scramble(state):
        return jax.tree.map(lambda x: -2 * x + 1, state)

    scramble = jax.jit(scramble, donate_argnums=0)
    state = {f"w{i}": jnp.arange(2**18, dtype=jnp.float32) + i for i in range(8)}  # 8 MiB
    expected = {}
    for step in range(1, 5):
        state = scramble(state)
        expected[step] = jax.tree.map(np.array, state)
        checkpoints.save(step, state, {})
        for _ in range(10):
            state = scramble(state)
    checkpoints.close()

    again = Checkpoints(tmp_path, read_only=True)
    for step, value in expected.items():
        assert_identical(again.restore(step, value)[0], value)
    again.close()


def test_the_latest_and_the_best_are_kept(tmp_path: Path) -> None:
    top1 = {1: 0.2, 2: 0.9, 3: 0.4, 4: None, 5: 0.5, 6: 0.3, 7: None}
    checkpoints = filled(tmp_path, steps=top1, keep=3)
    checkpoints.close()
    again = Checkpoints(tmp_path, read_only=True)
    assert again.steps() == [2, 5, 6, 7]
    assert (again.best(), again.latest()) == (2, 7)
    assert_identical(again.restore(2, {"w": np.zeros(3, np.int32)})[0], {"w": np.full(3, 2, np.int32)})
    again.close()


def test_without_an_evaluation_there_is_no_best(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, steps={1: None, 2: None, 3: None}, keep=1)
    checkpoints.close()
    again = Checkpoints(tmp_path, read_only=True)
    assert again.steps() == [3]
    assert again.best() is None
    again.close()


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new")
    assert (checkpoints.latest(), checkpoints.best(), checkpoints.steps()) == (None, None, [])
    checkpoints.close()


def test_a_step_can_be_saved_again_with_its_evaluation(tmp_path: Path) -> None:
    """A run that was stopped while it evaluated has saved that step before the evaluation."""
    filled(tmp_path, steps={1: 0.1, 2: None}).close()
    checkpoints = filled(tmp_path, steps={2: 0.7})
    checkpoints.close()
    again = Checkpoints(tmp_path, read_only=True)
    assert again.steps() == [1, 2]
    assert again.best() == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    assert again.restore(2, {"w": np.zeros(3, np.int32)})[1] == {"position": 2}
    again.close()


def test_dying_while_a_checkpoint_is_replaced_loses_nothing(tmp_path: Path) -> None:
    filled(tmp_path, steps={1: 0.1, 2: None}).close()
    (tmp_path / "2").rename(tmp_path / "2.replaced")  # as a process leaves it that is killed while it saves
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 2
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_dying_while_a_checkpoint_is_deleted_does_no_harm(tmp_path: Path) -> None:
    filled(tmp_path, steps={1: None, 2: 0.5, 3: None}).close()
    for file in ("_CHECKPOINT_METADATA", "state/_METADATA", "state/manifest.ocdbt"):
        (tmp_path / "1" / file).unlink()
    checkpoints = filled(tmp_path, steps={4: None}, keep=2)
    assert (checkpoints.best(), checkpoints.latest()) == (2, 4)
    checkpoints.close()
    assert Checkpoints(tmp_path, read_only=True).steps() == [2, 3, 4]


def one_line(error: pytest.ExceptionInfo[CheckpointError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("other", "leaf"),
    [
        (lambda: make_state(Tiny(num_classes=5)), "params.fc.bias"),
        (lambda: make_state(create_model("lenet")), "params.conv.bias"),
        (lambda: make_state(optimizer=optim.sgd(0.1, momentum=0.9)), "opt_state"),
    ],
    ids=["classes", "model", "optimizer"],
)
def test_a_checkpoint_of_another_model_is_refused_by_leaf(tmp_path: Path, other, leaf: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_state(), {})
    checkpoints.close()
    again = Checkpoints(tmp_path, read_only=True)
    with pytest.raises(CheckpointError) as error:
        again.restore(1, other())
    message = one_line(error)
    assert "is of another model or optimizer" in message
    assert str(tmp_path / "1") in message
    assert leaf in message
    again.close()


def test_variables_of_another_model_are_refused_by_leaf(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_state(), {})
    checkpoints.close()
    again = Checkpoints(tmp_path, read_only=True)
    with pytest.raises(CheckpointError, match=r"params\.fc\.bias is \(3,\) there and \(5,\) here"):
        again.restore_variables(1, abstract_variables(Tiny(num_classes=5)))
    again.close()


def saved_files(folder: Path) -> list[Path]:
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, make_state(), {"data": {"next": 1}}, metrics={"top1": 0.5})
    checkpoints.close()
    return sorted(path for path in (folder / "1").rglob("*") if path.is_file())


def test_a_checkpoint_that_is_cut_short_is_refused_in_one_line(tmp_path: Path) -> None:
    """Whichever of its files is truncated or gone, the state comes back whole or not at all."""
    state = make_state()
    refused = []
    for file in saved_files(tmp_path):
        whole = file.read_bytes()
        for cut in (whole[: len(whole) // 2], b"", None):
            if cut is None:
                file.unlink()
            else:
                file.write_bytes(cut)
            try:
                restored, progress = Checkpoints(tmp_path, read_only=True).restore(1, state)
                assert_identical(restored, state)
                assert progress == {"data": {"next": 1}}
            except CheckpointError as error:
                assert "\n" not in str(error)
                assert str(tmp_path / "1") in str(error)
                refused.append(file.relative_to(tmp_path / "1").as_posix())
            file.write_bytes(whole)
    assert {"state/manifest.ocdbt", "state/_METADATA", "progress/metadata", "metrics/metrics"} <= set(refused)
    assert any(file.startswith("state/d/") for file in refused)


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write checkpoints to") as error:
        Checkpoints(tmp_path / "file" / "checkpoints")
    one_line(error)


def test_leftovers_of_a_killed_save_are_no_checkpoints(tmp_path: Path) -> None:
    filled(tmp_path, steps={1: None}).close()
    leftover = tmp_path / "2.orbax-checkpoint-tmp"
    leftover.mkdir()
    (leftover / "state").mkdir()
    (leftover / "metrics").mkdir()
    (leftover / "metrics" / "metrics").write_text('{"top1"')
    reading = Checkpoints(tmp_path, read_only=True)
    assert reading.steps() == [1]
    reading.close()
    assert leftover.exists()
    writing = filled(tmp_path, steps={2: None})
    writing.close()
    assert not leftover.exists()
    assert Checkpoints(tmp_path, read_only=True).steps() == [1, 2]
