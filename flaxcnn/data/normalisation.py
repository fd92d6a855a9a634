"""Normalisation on the device, of batches of bytes: a quarter of the memory and of the way there."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxcnn.data.transforms import Preprocessing


def device_normalisation(preprocessing: Preprocessing) -> Callable[[Array], Array]:
    """A pure function from uint8 (..., c), as `preprocessing.pixels` makes them, to float32 (..., c).

    The numbers are the host's to the bit, for it looks them up in a table of these. By arithmetic they would not be:
    compilers multiply by a reciprocal where a division is written.
    """
    values = np.arange(256, dtype=np.uint8)[:, None, None].repeat(preprocessing.channels, axis=2)  # (256, 1, c)
    table = preprocessing.normalise(values)[:, 0]  # (256, c)

    def normalise(pixels: Array) -> Array:
        columns = [jnp.asarray(table[:, channel])[pixels[..., channel]] for channel in range(preprocessing.channels)]
        return jnp.stack(columns, axis=-1)

    return normalise
