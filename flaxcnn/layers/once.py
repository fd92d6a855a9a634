"""Computing an array once, where XLA would compute it again for each of its readers."""

from __future__ import annotations

import jax
from jax import Array, lax


@jax.custom_jvp
def once(x: Array) -> Array:
    """x, which XLA's CPU backend now computes once and keeps, rather than anew within each loop that reads it.

    That backend fuses a cheap elementwise expression into every one of its readers, so that all of what it is made
    of stays in memory, too, until the last of them. It spares expensive expressions that, and takes a division for
    one; an optimization barrier is gone by then. Infinities become NaN. Other backends see x itself.

    Args:
        x: floating-point numbers, of any shape.
    """
    return lax.platform_dependent(x, cpu=lambda x: x / (x * 0 + 1), default=lambda x: x)


once.defjvps(lambda tangent, _, x: tangent)
