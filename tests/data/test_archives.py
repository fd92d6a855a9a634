"""The published files of MNIST, Fashion-MNIST and CIFAR: written here in their formats, read back, and damaged."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from flaxcnn.data import (
    DataError,
    cifar10_splits,
    cifar100_splits,
    fashion_mnist_splits,
    mnist_splits,
)
from flaxcnn.data.archives import FASHION_MNIST_FOLDER
from tests.data.pictures import photographs, write_idx


@pytest.mark.parametrize("zipped", [True, False])
def test_mnist(tmp_path: Path, zipped: bool) -> None:
    rng = np.random.default_rng(0)
    written = {}
    for split, n in (("train", 12), ("test", 5)):
        written[split] = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)
        write_idx(tmp_path, split, *written[split], zipped=zipped)
    for split, make in mnist_splits(tmp_path).items():
        source, (images, labels) = make(), written[split]
        np.testing.assert_array_equal(source.labels, labels)
        assert source.labels.dtype == np.int64 and source.class_names == tuple("0123456789")
        for i, pixels in enumerate(images):
            example = source[i]
            assert example["image"].mode == "RGB" and example["label"] == labels[i]
            np.testing.assert_array_equal(np.asarray(example["image"]), pixels[:, :, None].repeat(3, axis=2))
        assert source.name(2) == f"{split}[2]"


def test_mnist_is_what_torchvision_reads(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is the reference")
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28), np.uint8)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "test"):
        write_idx(raw, split, images, np.arange(7, dtype=np.uint8), zipped=False)
    reference = datasets.MNIST(str(tmp_path), train=True)
    source = mnist_splits(raw)["train"]()
    np.testing.assert_array_equal(source.images, reference.data.numpy())
    np.testing.assert_array_equal(source.labels, reference.targets.numpy())


def test_fashion_mnist_as_debian_installs_it() -> None:
    if not Path(FASHION_MNIST_FOLDER).is_dir():
        pytest.skip("Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist")
    for split, total in (("train", 60_000), ("test", 10_000)):
        source = fashion_mnist_splits()[split]()
        assert source.images.shape == (total, 28, 28)
        assert np.bincount(source.labels).tolist() == [total // 10] * 10
    assert [source.class_names[i] for i in source.labels[:4]] == ["Ankle boot", "Pullover", "Trouser", "Trouser"]


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    def message() -> str:
        with pytest.raises(DataError) as caught:
            mnist_splits(tmp_path)["train"]()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    missing = message()
    assert f"MNIST: there is no train-images-idx3-ubyte.gz in {tmp_path}; get it: curl" in missing
    assert "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz" in missing
    images, labels = np.zeros((4, 28, 28), np.uint8), np.arange(4, dtype=np.uint8)
    write_idx(tmp_path, "train", images, labels[:3], zipped=True)
    assert "4 train images and 3 labels" in message()
    write_idx(tmp_path, "train", images, labels + 100, zipped=True)
    assert "label 103 where there are 10 classes" in message()
    write_idx(tmp_path, "train", images, labels, zipped=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert f"{file}: damaged" in message()
    file.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    assert f"{file}: it ends before its 4 examples do" in message()
    for count in (2**32 - 1, 2**31):  # more than there is memory
        file.write_bytes(gzip.compress(struct.pack(">4I", 0x803, count, 28, 28) + images.tobytes()))
        assert f"{file}: it ends before its {count} examples do" in message()
    for content in (b"", b"<html>", gzip.decompress(whole)[:8] + bytes(8)):
        file.write_bytes(gzip.compress(content))
        assert f"{file}: not an IDX file of 28x28 bytes" in message()


class Python2(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes as Python 2 wrote its strings."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_string


def pickled(value: object) -> bytes:
    file = io.BytesIO()
    Python2(file, protocol=2).dump(value)
    return file.getvalue()


class Cifar:
    """A small CIFAR of real photographs, and each of the forms that it is published in."""

    def __init__(self, classes: int) -> None:
        rng = np.random.default_rng(0)
        self.classes, self.names = classes, [f"class_{i}" for i in range(classes)]
        self.images, self.labels = {}, {}
        for split, n in (("train", 20), ("test", 4)):
            crops = []
            for i in range(n):
                left, top = (int(v) for v in rng.integers(0, 300, 2))
                crops.append(photographs()[i % 2].crop((left, top, left + 128, top + 128)).resize((32, 32)))
            self.images[split] = np.stack([np.asarray(crop) for crop in crops])  # (n, h, w, c)
            self.labels[split] = rng.integers(0, classes, n)

    def batches(self) -> dict[str, tuple[np.ndarray, list[int]]]:
        """File -> rows of channels first, labels."""
        batches = {}
        for split in ("train", "test"):
            rows = self.images[split].transpose(0, 3, 1, 2).reshape(-1, 3072)
            labels = self.labels[split].tolist()
            if self.classes == 100:
                batches[split] = rows, labels
            elif split == "test":
                batches["test_batch"] = rows, labels
            else:
                batches |= {f"data_batch_{k + 1}": (rows[4 * k :][:4], labels[4 * k :][:4]) for k in range(5)}
        return batches

    def write_python(self, folder: Path) -> None:
        """Pickled as Python 2 did."""
        folder.mkdir()
        kind = b"labels" if self.classes == 10 else b"fine_labels"
        for name, (rows, labels) in self.batches().items():
            batch = {b"data": rows, kind: labels, b"filenames": [b"x.png"] * len(labels), b"batch_label": b"1 of 5"}
            (folder / name).write_bytes(pickled(batch))
        names = [name.encode() for name in self.names]
        if self.classes == 10:
            (folder / "batches.meta").write_bytes(pickled({b"label_names": names, b"num_vis": 3072}))
        else:
            (folder / "meta").write_bytes(pickled({b"fine_label_names": names}))

    def write_binary(self, folder: Path) -> None:
        folder.mkdir()
        for name, (rows, labels) in self.batches().items():
            coarse = [] if self.classes == 10 else [np.full(len(labels), 7, np.uint8)]
            columns = [*coarse, np.array(labels, np.uint8)]
            (folder / f"{name}.bin").write_bytes(np.column_stack([*columns, rows]).astype(np.uint8).tobytes())
        meta = "batches.meta.txt" if self.classes == 10 else "fine_label_names.txt"
        (folder / meta).write_text("\n".join(self.names) + "\n\n")


FORMS = [
    (10, "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    (10, "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    (100, "cifar-100-python", "cifar-100-python.tar.gz"),
    (100, "cifar-100-binary", "cifar-100-binary.tar.gz"),
]


@pytest.mark.parametrize(("classes", "folder", "archive"), FORMS)
def test_cifar(tmp_path: Path, classes: int, folder: str, archive: str) -> None:
    cifar = Cifar(classes)
    write = cifar.write_binary if "bin" in folder else cifar.write_python
    write(tmp_path / folder)
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / archive, "w:gz") as tar:
        tar.add(tmp_path / folder, folder)
    splits_of = cifar10_splits if classes == 10 else cifar100_splits
    for place in (tmp_path, tmp_path / folder, tmp_path / "packed", tmp_path / "packed" / archive):
        for split, make in splits_of(place).items():
            source = make()
            np.testing.assert_array_equal(source.images, cifar.images[split])
            np.testing.assert_array_equal(source.labels, cifar.labels[split])
            assert source.class_names == tuple(cifar.names)
            np.testing.assert_array_equal(np.asarray(source[1]["image"]), cifar.images[split][1])


def test_cifar10_is_what_torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is the reference")
    Cifar(10).write_python(tmp_path / "cifar-10-batches-py")
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    for split in ("train", "test"):
        reference = datasets.CIFAR10(str(tmp_path), train=split == "train")
        source = cifar10_splits(tmp_path)[split]()
        np.testing.assert_array_equal(source.images, reference.data)
        assert source.labels.tolist() == reference.targets


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil"),)


def test_a_pickle_cannot_do_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Cifar(10).write_python(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(DataError, match=r"CIFAR-10 cannot be read \(it asks for pathlib"):
        cifar10_splits(tmp_path)["train"]()
    assert not (tmp_path / "evil").exists()


def refusal(path: Path) -> str | None:
    """What is said of a CIFAR-10 that cannot be read; None where it can."""
    try:
        cifar10_splits(path)["train"]()
    except DataError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({b"labels": [-1, 0, 0, 0]}, "images and labels do not fit each other"),
        ({b"labels": [10, 0, 0, 0]}, "images and labels do not fit each other"),
        ({b"labels": [0.5, 0, 0, 0]}, "images and labels do not fit each other"),
        ({b"labels": [[0]] * 4}, "number of dimensions"),
        ({b"labels": None}, "number of dimensions"),
        ({b"data": None}, "its data is no array of bytes"),
        ({b"data": np.zeros((4, 3072), np.float32)}, "an array of 'f4'"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(tmp_path: Path, change: dict, reason: str) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    Cifar(10).write_python(folder)
    batch = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0] * 4} | change
    (folder / "data_batch_2").write_bytes(pickled(batch))
    said = refusal(tmp_path)
    assert said is not None and said.startswith(f"{tmp_path}: CIFAR-10 cannot be read (") and reason in said


@pytest.mark.parametrize("name", ["data_batch_2", "batches.meta"])
def test_a_damaged_pickle_is_named(tmp_path: Path, name: str) -> None:
    """Whatever byte is another one, it is read or it is one line: pickle raises a dozen types of exceptions."""
    file = tmp_path / "cifar-10-batches-py" / name
    Cifar(10).write_python(file.parent)
    whole = file.read_bytes()
    for end in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        assert refusal(tmp_path) is not None, end
    rng, refused = np.random.default_rng(0), 0
    places = [*range(min(200, len(whole))), *range(max(len(whole) - 200, 200), len(whole))]  # between them are pixels
    for place in places:
        for byte in (b"\0\xff.(R}]"[place % 7], int(rng.integers(256))):
            file.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            refused += refusal(tmp_path) is not None
    assert refused > len(places) / 2


def test_damaged_cifar_is_named(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            cifar10_splits(path)["train"]()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    absent = message(tmp_path)
    assert f"CIFAR-10: there is no cifar-10-batches-py in {tmp_path}; get it: mkdir -p {tmp_path} && curl" in absent
    (tmp_path / "cifar.zip").touch()
    assert "not an archive of CIFAR-10 (cifar-10-python.tar.gz or" in message(tmp_path / "cifar.zip")
    folder = tmp_path / "cifar-10-batches-bin"
    Cifar(10).write_binary(folder)
    batch = folder / "data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    assert "CIFAR-10 cannot be read (cannot reshape" in message(tmp_path)
    batch.unlink()
    assert f"{folder}: data_batch_2.bin is missing" in message(tmp_path)
    archive = tmp_path / "packed" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    assert f"{archive}: data_batch_2.bin is missing" in message(archive.parent)
    archive.write_bytes(archive.read_bytes()[:500])
    assert f"{archive}: damaged" in message(archive.parent)
