"""What every model has in common."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


class Classifier(nn.Module, kw_only=True):
    """An image classifier: images (n, h, w, c) of normalised floats to logits (n, num_classes).

    Attributes:
        num_classes: 0 returns the pooled features instead of logits.
        dtype: of the computation; None for the promoted type of images and parameters; `jnp.bfloat16` is
            mixed precision, with float32 parameters and statistics.
        param_dtype: of parameters and running statistics.
        image_size: height and width in pixels it was published for. Other sizes work unless `min_image_size`
            or the family's docstring says otherwise.
        min_image_size: the smallest height and width it can compute.
        axis_name: of a `pmap` or `shard_map` over whose devices BatchNorm shares its statistics in training.
    """

    holds_blocks: ClassVar[bool] = True

    num_classes: int = 1000
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    image_size: int = 224
    min_image_size: int = 1
    axis_name: str | None = None

    def check(self, images: Array) -> None:
        """Raise a ValueError unless images are (n, h, w, c) floats of at least the minimum size."""
        if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images must be normalised floats of shape (n, h, w, c), not {images.dtype} of shape {images.shape}"
            )
        if images.shape[1] in (1, 3) and images.shape[3] > 4:
            raise ValueError(f"images of shape {images.shape} look like (n, c, h, w): use images.transpose(0, 2, 3, 1)")
        if min(images.shape[1:3]) < self.min_image_size:
            raise ValueError(
                f"images of {images.shape[1]}x{images.shape[2]} pixels are too small for {type(self).__name__}: "
                f"the minimum is {self.min_image_size}x{self.min_image_size}"
            )
