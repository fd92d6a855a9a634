"""`once`: x itself, to the bit, and its derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from flaxcnn.layers.once import once


def test_numbers_and_derivatives_are_those_of_x() -> None:
    tiny, huge = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    x = jnp.asarray([0.0, -0.0, 1 / 3, -tiny, huge, -huge])
    np.testing.assert_array_equal(jax.jit(once)(x).view(np.int32), x.view(np.int32))
    np.testing.assert_array_equal(jax.jvp(once, (x,), (2 * x + 1,))[1], 2 * x + 1)
    np.testing.assert_array_equal(jax.hessian(lambda x: jnp.sum(once(x) ** 3))(x[:3]), np.diag(6 * x[:3]))


def test_its_readers_share_it() -> None:
    """Memory holds it alone; without `once` it is computed twice, of an array of its own size that is kept."""
    x = jnp.ones((1024, 1024))

    def read_twice(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = once(jnp.sin(x[:, :1]) + x)
        return jnp.sum(jnp.tanh(y), 1), y.T + 1

    assert jax.jit(read_twice).lower(x).compile().memory_analysis().temp_size_in_bytes <= x.nbytes
