"""Channel statistics against numpy over all pixels."""

from __future__ import annotations

import numpy as np

from flaxcnn.data import synthetic
from flaxcnn.data.statistics import channel_statistics


def test_they_are_numpys() -> None:
    source = synthetic(37, image_size=5)
    mean, std, number = channel_statistics(source, np.asarray)
    assert number == 37
    np.testing.assert_allclose(mean, source.images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, source.images.std(axis=(0, 1, 2)), rtol=1e-12)
    _, _, number = channel_statistics(source, np.asarray, most=10)
    assert number == 10
