"""The training state."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from flaxcnn import create_model, optim
from flaxcnn.train import create_state
from tests.train.tiny import Tiny, TinyWithHeads, make_variables


def test_it_holds_arrays_only() -> None:
    variables = make_variables(Tiny())
    state = create_state(Tiny(), optim.adam(1e-3), variables, seed=7)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert (state.step, state.seed) == (0, 7)
    assert state.step.dtype == np.int32
    assert jax.tree.structure(state.variables) == jax.tree.structure(variables)


def test_networks_without_statistics_have_empty_ones() -> None:
    state = create_state(TinyWithHeads(), optim.sgd(0.1), make_variables(TinyWithHeads()))
    assert state.batch_stats == {}


@pytest.mark.parametrize("of", [TinyWithHeads, lambda: create_model("lenet")])
def test_variables_of_another_model_are_refused(of) -> None:
    with pytest.raises(ValueError, match="params are not those of this Tiny"):
        create_state(Tiny(), optim.sgd(0.1), make_variables(of()))


def test_missing_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_stats are not those of this Tiny"):
        create_state(Tiny(), optim.sgd(0.1), {"params": make_variables(Tiny())["params"]})
