"""One stream of random numbers for flaxcnn and for torchvision."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest


class Replayed:
    """The generator's methods and torch's functions, fed from the same uniform numbers."""

    def __init__(self, seed: int) -> None:
        self.numbers: Iterator[float] = iter(random.Random(seed).random, None)

    def random(self) -> float:
        return next(self.numbers)

    def uniform(self, low: float, high: float) -> float:
        return float(low) + next(self.numbers) * float(high - low)

    def integers(self, low: int, high: int | None = None) -> int:
        low, high = (0, low) if high is None else (low, high)
        return low + int(next(self.numbers) * (high - low))

    def dirichlet(self, alphas: list[float]) -> np.ndarray:
        parts = np.array([next(self.numbers) for _ in alphas], np.float32)
        return parts / parts.sum()

    def patch_torch(self, patch: pytest.MonkeyPatch) -> None:
        import torch

        def randint(low: int, high, size=None, **_):
            low, high = (0, low) if size is None else (low, high)
            return torch.tensor(self.integers(low, high))

        patch.setattr(torch, "randint", randint)
        patch.setattr(torch, "rand", lambda size: torch.tensor(self.random(), dtype=torch.float64))
        patch.setattr(torch.Tensor, "uniform_", lambda t, low, high: t.fill_(self.uniform(low, high)))
