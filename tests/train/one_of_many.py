"""A process of a run over several, started by `test_parallel.py`: trains, evaluates, saves.

python -m tests.train.one_of_many INDEX COUNT PORT FOLDER ARRANGEMENT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

STEPS = 3


def main(index: int, count: int, port: int, folder: Path, arrangement: str) -> None:
    if count > 1:
        jax.distributed.initialize(f"localhost:{port}", count, index)
    from flaxcnn import optim
    from flaxcnn.inference import evaluate, make_eval_step
    from flaxcnn.train import create_state, make_train_step
    from flaxcnn.train.checkpoint import Checkpoints
    from flaxcnn.train.parallel import DataParallel, FullySharded, PerDevice, SharedStop
    from tests.train.tiny import Tiny, make_batch, make_variables

    class AllSharded(FullySharded):
        """Splits even the arrays of the tiny network."""

        min_size = 4

    parallel = {"jit": DataParallel, "fsdp": AllSharded, "pmap": PerDevice}[arrangement]()
    model, optimizer = Tiny(axis_name=parallel.axis_name), optim.sgd(0.1, momentum=0.9)
    assert parallel.device_count == 4
    variables = jax.tree.map(lambda x: x.astype(jnp.float64), make_variables(model))
    state = parallel.put_state(create_state(model, optimizer, variables))
    step = parallel.jit_step(make_train_step(model, optimizer, axis_name=parallel.axis_name), state)

    def share(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        rows = np.split(np.arange(8), count)[index]
        return parallel.put_batch({name: array[rows] for name, array in batch.items()})

    for seed in range(STEPS):
        state, _ = step(state, share(make_batch(seed)))
    whole = jax.device_get(jax.tree.leaves(parallel.jit(lambda state: state)(state)))
    np.savez(folder / f"{index}.npz", *whole)
    for metrics in (None, {"top1": 0.5}):  # saved while it was evaluated, and again
        checkpoints = Checkpoints(folder / "checkpoints")
        checkpoints.save(STEPS, state, {"step": STEPS}, metrics=metrics)
        checkpoints.close()
    batches = [{**make_batch(n), "mask": (np.arange(8) < 8 - n).astype(np.float32)} for n in range(3)]
    result = evaluate(parallel.jit(make_eval_step(Tiny())), state.variables, map(share, batches))

    asked = iter(range(1, 100))
    stop = SharedStop(parallel, lambda: 15 if next(asked) >= 4 and index == count - 1 else 0)
    stopped_at = next(n for n in range(1, 100) if stop())
    (folder / f"{index}.json").write_text(
        json.dumps({"result": result, "stopped_at": stopped_at, "reason": stop.reason})
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), Path(sys.argv[4]), sys.argv[5])
