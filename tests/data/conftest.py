"""What the tests of the transforms share."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.data.pictures import real_images


@pytest.fixture(scope="session")
def v2():
    pytest.importorskip("torch", reason="torch is the reference")
    return pytest.importorskip("torchvision.transforms.v2", reason="torchvision is the reference")


@pytest.fixture(scope="session")
def images() -> list[tuple[str, Image.Image]]:
    return list(real_images(200))
