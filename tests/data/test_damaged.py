"""300 damaged images: each is named, none ends or hangs a thread, and memory stays bounded."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxcnn.data import DataError, Preprocessing, check_data, eval_batches, folder_splits, without_unreadable
from tests.data.pictures import photographs

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")


def file_of(kind: str) -> bytes:
    file = io.BytesIO()
    photographs()[0].resize((60, 40)).save(file, kind)
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A small PNG file that says it is huge, of zeros as well packed as zeros can be."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100_000), 9)) + chunk(b"IEND", b"")


def damaged() -> Iterator[tuple[str, bytes]]:
    """300 files: their names and contents."""
    rng = np.random.default_rng(0)
    whole = {kind: file_of(kind) for kind in FORMATS}
    for kind, content in whole.items():
        for i in range(25):  # 150 cut short, anywhere but at their last bytes
            yield f"cut_{kind}_{i}.{kind.lower()}", content[: int(len(content) * rng.uniform(0, 0.8))]
    for i in range(30):
        yield f"empty_{i}.jpg", b""
    for i in range(30):
        yield f"text_{i}.png", b"<html>404 Not Found</html>" * i + b"x"
    for i in range(30):
        yield f"noise_{i}.webp", rng.bytes(500 + i)
    for i in range(30):
        yield f"bomb_{i}.png", png_of_size(20_000 + i, 20_000)
    for i in range(30):
        yield f"huge_{i}.png", png_of_size(2**31 - 1, 2**i)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damaged")
    for number, (name, content) in enumerate(damaged()):
        (root / f"class_{number % 2}").mkdir(exist_ok=True)
        (root / f"class_{number % 2}" / name).write_bytes(content)
    for number in range(4):
        (root / f"class_{number % 2}" / f"good_{number}.jpg").write_bytes(file_of("JPEG"))
    return root


pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


def test_each_is_named_and_the_rest_is_read(folder: Path) -> None:
    source = folder_splits(folder)["all"]()
    assert len(source) == 304
    report = check_data({"all": source})
    named = {Path(line.split(": ")[0]).name for line in report.broken}
    assert named == {name for name, _ in damaged()} and len(report.broken) == 300
    assert all("\n" not in line for line in report.broken)
    kept = without_unreadable(source, "train")
    assert len(kept) == 4 and len(kept.skipped) == 300


def test_the_loader_names_each(folder: Path) -> None:
    source = folder_splits(folder)["all"]()
    is_good = np.array([Path(source.name(i)).name.startswith("good") for i in range(304)])
    (whole, *_), damaged = np.flatnonzero(is_good), np.flatnonzero(~is_good)
    assert len(list(eval_batches(source.select([whole]), Preprocessing(8), batch_size=1))) == 1
    assert len(damaged) == 300
    for i in damaged:
        with pytest.raises(DataError) as caught:
            list(eval_batches(source.select([whole, i]), Preprocessing(8), batch_size=1, num_threads=2))
        assert str(caught.value).startswith(f"{source.name(i)}: ") and "\n" not in str(caught.value)


def test_memory_is_bounded(folder: Path, tmp_path: Path) -> None:
    """A process of its own, whose greatest memory is read: the bombs would take 1.2 GB each, the strip 64."""
    shutil.copytree(folder, tmp_path / "images")
    Image.new("RGB", (1, 65_500)).save(tmp_path / "images" / "class_0" / "strip.png")
    code = """
import contextlib, pathlib, re, sys, warnings
warnings.simplefilter("ignore")
from flaxcnn.data import DataError, Preprocessing, check_data, eval_batches, folder_splits
source = folder_splits(sys.argv[1])["all"]()
report = check_data({"all": source})
for i in range(len(source)):
    with contextlib.suppress(DataError):
        list(eval_batches(source.select([i]), Preprocessing(224, 256), batch_size=1))
status = pathlib.Path("/proc/self/status").read_text()
print(len(report.broken), re.search(r"VmHWM:\\s*(\\d+) kB", status)[1])
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells the greatest memory of a process apart from its parent's")
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "images")], check=True, capture_output=True, text=True, timeout=120
    )
    broken, kilobytes = map(int, out.stdout.split())
    assert broken == 300
    assert kilobytes < 500_000
