"""What a training step reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from flaxcnn.models import Classifier, abstract_variables


class TrainState(struct.PyTreeNode):
    """A pytree of arrays and nothing else.

    Attributes:
        step: updates made so far, int32 ().
        params: the model's parameters.
        batch_stats: BatchNorm's running statistics; empty for networks without.
        opt_state: the optimiser's.
        seed: of the run's randomness, uint32 (). The key of a step is folded from it and `step`, so
            that a resumed run draws what an uninterrupted one would have drawn.
        average: a moving average of parameters and statistics, as `variables` has them; empty where none is kept.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    seed: Array
    average: Any = struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: Classifier,
    optimizer: optax.GradientTransformation,
    variables: Mapping[str, Any],
    *,
    seed: int = 0,
    average: bool = False,
) -> TrainState:
    """The state before the first step.

    It can be traced: jitted together with `model.init`, all arrays come of one program instead of one for each.

    Args:
        model: whose variables they are.
        optimizer: an Optax transformation.
        variables: from `model.init`, `from_torch` or `load_weights`. They are copied: a donated state
            does not take them along.
        seed: of dropout, stochastic depth and mixing.
        average: whether to keep a moving average, which begins as a copy.

    Raises:
        ValueError: when the variables are not those of the model.
    """
    expected = abstract_variables(model)  # of which the tree counts, and no number of channels changes it
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    for name, own, given in (
        ("params", expected["params"], params),
        ("batch_stats", expected.get("batch_stats", {}), batch_stats),
    ):
        if jax.tree.structure(own) != jax.tree.structure(given):
            raise ValueError(f"these {name} are not those of this {type(model).__name__}")
    params, batch_stats = jax.tree.map(jnp.array, (params, batch_stats))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        seed=jnp.asarray(seed, jnp.uint32),
    )
    return state.replace(average=jax.tree.map(jnp.array, state.variables)) if average else state
