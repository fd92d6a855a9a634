"""tensorflow-datasets in ArrayRecord: written and read without TensorFlow and without a network."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.extractor import ExtractError
from tensorflow_datasets.core.download.util import DownloadError

from flaxcnn.data import (
    ArraySource,
    DataError,
    choose,
    digits_splits,
    fashion_mnist_splits,
    folder_splits,
    tfds_splits,
    train_batches,
    write_arrayrecord,
)
from flaxcnn.data.archives import FASHION_MNIST_FOLDER
from tests.data.pictures import KINDS, encoded, photographs, write_idx


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("it touches the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def assert_same(source, expected) -> None:
    assert len(source) == len(expected) and source.class_names == expected.class_names
    np.testing.assert_array_equal(source.labels, expected.labels)
    for i in range(len(source)):
        ours, theirs = source[i], expected[i]
        assert ours["label"] == theirs["label"]
        np.testing.assert_array_equal(np.asarray(ours["image"]), np.asarray(theirs["image"]))


def written_here(folder: Path) -> dict[str, ArraySource]:
    images, labels = photographs(), np.arange(60, dtype=np.uint8) % 10
    parts = [np.asarray(images[i % len(images)].convert("L").crop((i, i, i + 28, i + 28))) for i in range(60)]
    write_idx(folder, "train", np.stack(parts[:50]), labels[:50], zipped=True)
    write_idx(folder, "test", np.stack(parts[50:]), labels[50:], zipped=False)
    return {split: make() for split, make in fashion_mnist_splits(folder).items()}


def installed(folder: Path) -> dict[str, ArraySource]:
    if not Path(FASHION_MNIST_FOLDER).is_dir():
        pytest.skip("Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist")
    return {split: make() for split, make in fashion_mnist_splits().items()}


@pytest.mark.parametrize("read", [written_here, pytest.param(installed, marks=pytest.mark.slow)])
def test_fashion_mnist_is_the_same_by_way_of_arrayrecord(
    tmp_path: Path, read: Callable[[Path], dict[str, ArraySource]]
) -> None:
    from_idx = read(tmp_path / "idx")
    folder = write_arrayrecord("fashion", from_idx, tmp_path)
    assert folder == tmp_path / "fashion" / "1.0.0"
    prepared = tfds_splits("fashion", data_dir=tmp_path)
    assert prepared.keys() == from_idx.keys()
    for split, make in prepared.items():
        source, expected = make(), from_idx[split]
        np.testing.assert_array_equal(source.labels, expected.labels)
        for start in range(0, len(source), 1000):
            rows = range(start, min(start + 1000, len(source)))
            stored = [np.asarray(Image.open(io.BytesIO(r["image"]))) for r in source.records.__getitems__([*rows])]
            np.testing.assert_array_equal(stored, np.repeat(expected.images[rows][..., None], 3, axis=-1))
        assert_same(source.select(range(0, len(source), 50)), expected.select(range(0, len(source), 50)))


def test_tensorflow_is_not_asked_for_even_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("import os; os._exit(3)")
    code = """
import sys
from flaxcnn.data import digits, tfds_splits, write_arrayrecord
write_arrayrecord("digits", {"train": digits("val")}, sys.argv[1])
source = tfds_splits("digits", data_dir=sys.argv[1])["train"]()
assert source.labels.tolist() == digits("val").labels.tolist() and source[7]["label"] == source.labels[7]
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, f"{ran.returncode}: {ran.stderr}"


def test_pictures_of_every_kind_keep_their_pixels(tmp_path: Path) -> None:
    for number, kind in enumerate(KINDS):
        folder = tmp_path / "in" / f"class_{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = photographs()[0].crop((10, 20, 10 + 30 + number, 60))
        (folder / f"{kind}.jpg").write_bytes(encoded(kind, picture))
    source = folder_splits(tmp_path / "in")["all"]()
    write_arrayrecord("pictures", {"all": source}, tmp_path / "out")
    (prepared,) = (make() for make in tfds_splits("pictures", data_dir=tmp_path / "out").values())
    assert_same(prepared, source)
    as_is = {source.records[i]["image"][:4] for source in [prepared] for i in range(len(source))}
    assert b"\xff\xd8\xff\xe0" in as_is  # a JPEG file stays one


def test_parts_of_a_prepared_data_set(tmp_path: Path) -> None:
    digits = digits_splits()["all"]().select(range(60))
    write_arrayrecord("digits", {"train": digits}, tmp_path)
    splits = tfds_splits("digits", data_dir=tmp_path)
    val = choose(splits, "val", fold=(0, 4))
    rows = [int(val.key(i).removeprefix("train[").removesuffix("]")) for i in range(len(val))]
    assert_same(val, digits.select(rows))
    assert_same(val.select([2, 0]), digits.select([rows[2], rows[0]]))
    assert val.name(0) == f"{tmp_path}/digits/1.0.0 {val.key(0)}"
    assert_same(pickle.loads(pickle.dumps(val)), val)


def test_labels_are_kept_beside_the_records_until_these_change(tmp_path: Path) -> None:
    def write(first: int) -> ArraySource:
        part = digits_splits()["all"]().select(range(first, first + 20))
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        written = write_arrayrecord("digits", {"train": part}, tmp_path / "new")
        shutil.copytree(written, tmp_path / "digits" / "1.0.0", dirs_exist_ok=True)
        return part

    for first in (0, 100):  # other records over the first, as a copy from elsewhere
        part = write(first)
        assert_same(tfds_splits("digits", data_dir=tmp_path)["train"](), part)
    kept = sorted((tmp_path / "digits" / "1.0.0").glob("labels-train-*.npy"), key=lambda file: file.stat().st_mtime_ns)
    np.testing.assert_array_equal(np.load(kept[-1]), part.labels)
    np.save(kept[-1], part.labels[::-1])  # it is read
    assert tfds_splits("digits", data_dir=tmp_path)["train"]().labels.tolist() == part.labels[::-1].tolist()
    kept[-1].write_bytes(kept[-1].read_bytes()[:-5])  # and read from the records where it is damaged
    assert_same(tfds_splits("digits", data_dir=tmp_path)["train"](), part)


@pytest.mark.parametrize("damage", ["missing", "cut", "zeros"])
def test_damaged_files_of_records_are_named(damage: str, tmp_path: Path) -> None:
    folder = write_arrayrecord("digits", {"train": digits_splits()["all"]().select(range(20))}, tmp_path)
    (file,) = folder.glob("*array_record*")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage == "cut" else bytes(len(content)))
    if damage == "missing":
        file.unlink()
    for read in (lambda source: source[19], lambda source: source.labels):
        with pytest.raises(DataError, match=r": its records cannot be read \(.*\); copy or prepare it anew$") as caught:
            read(tfds_splits("digits", data_dir=tmp_path)["train"]())
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_labels_are_read_where_they_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = digits_splits()["all"]().select(range(20))
    folder = write_arrayrecord("digits", {"train": part}, tmp_path)

    def full(file: Path, _: np.ndarray) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    before = sorted(folder.iterdir())
    assert_same(tfds_splits("digits", data_dir=tmp_path)["train"](), part)
    assert sorted(folder.iterdir()) == before


def test_threads_on_a_fresh_data_set_read_its_labels_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_arrayrecord("digits", {"train": digits_splits()["all"]().select(range(40))}, tmp_path)
    saved, save = [], np.save
    monkeypatch.setattr(np, "save", lambda *args: (saved.append(1), save(*args)))
    source = tfds_splits("digits", data_dir=tmp_path)["train"]()
    with closing(train_batches(source, lambda *_: np.zeros((1, 1, 3)), batch_size=4, seed=0, num_threads=8)) as batches:
        for _ in range(10):
            next(batches)
    assert len(saved) == 1


def test_what_is_absent_is_named_without_touching_the_network(tmp_path: Path) -> None:
    def message(builder: str) -> str:
        with pytest.raises(DataError) as caught:
            tfds_splits(builder, data_dir=tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    absent = message("mnist")
    assert f"mnist is not prepared in {tmp_path}; prepare it with --data.download True" in absent
    assert f"put them into {tmp_path / 'downloads' / 'manual'} first" in message("imagenet2012")
    write_arrayrecord("digits", {"all": digits_splits()["all"]().select([0, 1])}, tmp_path)
    assert "(what is there: digits)" in message("mnist")
    assert "no data set 'digts'; did you mean digits" in message("digts")
    assert "BuilderConfig nonsense not found" in message("imagenette/nonsense")
    assert message("mnist:9.9.9").startswith("mnist:9.9.9: Dataset mnist cannot be loaded at version 9.9.9, only: ")
    assert "only tensorflow-datasets' own data sets are read" in message("huggingface:mnist")
    assert message("digits:2.0.0") == f"{tmp_path} has no 'digits:2.0.0'; of digits there is 1.0.0"
    for inside in ("digits", "digits/1.0.0"):
        with pytest.raises(DataError, match=f"{inside} is a data set, not the folder of data sets; name {tmp_path}$"):
            tfds_splits("digits", data_dir=tmp_path / inside)


def test_where_tensorflow_datasets_keeps_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = digits_splits()["all"]().select([0, 1])
    for variable, folder in (("HOME", tmp_path / "tensorflow_datasets"), ("TFDS_DATA_DIR", tmp_path / "own")):
        monkeypatch.setenv(variable, str(tmp_path if variable == "HOME" else folder))
        write_arrayrecord(f"digits_{variable.lower()}", {"train": part}, folder)
        assert_same(tfds_splits(f"digits_{variable.lower()}")["train"](), part)


def made_up(monkeypatch: pytest.MonkeyPatch, download: Callable[[], None]) -> None:
    """Let tensorflow-datasets have a data set `made_up` of 20 digits, which calls `download` when it is prepared."""
    import tensorflow_datasets as tfds

    class MadeUp(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.0")
        name = "made_up"

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=list("0123456789"))}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            download()
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, example in enumerate(digits_splits()["all"]().select(range(20))):
                file = io.BytesIO()
                example["image"].save(file, "PNG")
                yield i, {"image": file.getvalue(), "label": example["label"]}

    monkeypatch.setattr(tfds, "builder", lambda name, **options: MadeUp(**options))
    monkeypatch.setattr(tfds.core.utils.gcs_utils, "is_dataset_on_gcs", lambda name: False)
    monkeypatch.setattr(tfds.core.utils.gcs_utils, "gcs_dataset_info_files", lambda name: [])


def test_download_prepares_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = []
    made_up(monkeypatch, lambda: downloads.append(1))
    with pytest.raises(DataError, match=r"made_up is not prepared in .*; prepare it with --data.download True"):
        tfds_splits("made_up", data_dir=tmp_path)
    assert not downloads
    expected = digits_splits()["all"]().select(range(20))
    for download in (True, True, False):
        source = tfds_splits("made_up", data_dir=tmp_path, download=download)["train"]()
        assert sorted(source.labels.tolist()) == sorted(expected.labels.tolist())
        pixels = sorted(np.asarray(source[i]["image"]).tobytes() for i in range(20))
        assert pixels == sorted(np.asarray(expected[i]["image"]).tobytes() for i in range(20))
    assert len(downloads) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'tensorflow'"),
            "made_up: its builder encodes images with TensorFlow, which is not installed; where it is, prepare it with "
            "`tfds build made_up --file_format=array_record`, and copy the folder {folder}/made_up/2.0.0",
        ),
        (OSError(28, "No space\nleft on device"), "made_up cannot be prepared: [Errno 28] No space left on device"),
        (AssertionError("put them into manual"), "made_up cannot be prepared: put them into manual"),
        (DownloadError("404\nfor url"), "made_up cannot be prepared: 404 for url"),
        (NonMatchingChecksumError("other bytes"), "made_up cannot be prepared: other bytes"),
        (ExtractError("no zip"), "made_up cannot be prepared: no zip"),
    ],
)
def test_a_failed_download_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail() -> None:
        raise error

    made_up(monkeypatch, fail)
    with pytest.raises(DataError) as caught:
        tfds_splits("made_up", data_dir=tmp_path, download=True)
    assert str(caught.value) == message.format(folder=tmp_path)
    assert not (tmp_path / "made_up" / "2.0.0").exists()


def test_another_missing_module_is_no_fault_of_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    made_up(monkeypatch, fail)
    with pytest.raises(DataError, match=r"^made_up: this data set's builder needs scipy: install it$"):
        tfds_splits("made_up", data_dir=tmp_path, download=True)


def test_an_existing_data_set_is_not_overwritten(tmp_path: Path) -> None:
    source = digits_splits()["all"]().select([0, 1])
    write_arrayrecord("digits", {"all": source}, tmp_path)
    with pytest.raises(DataError, match="is there already"):
        write_arrayrecord("digits", {"all": source}, tmp_path)
    with pytest.raises(DataError, match="'My set' is no name for a data set"):
        write_arrayrecord("My set", {"all": source}, tmp_path)
    with pytest.raises(DataError, match="'mnist' is one of tensorflow-datasets' own data sets: choose another name"):
        write_arrayrecord("mnist", {"all": source}, tmp_path)
    with pytest.raises(DataError, match=r"^splits: 'all' would be called 'train', and there is one"):
        write_arrayrecord("both", {"all": source, "train": source}, tmp_path)
    for name in ("my-val", "train[1]", "a b"):
        with pytest.raises(DataError, match=re.escape(f"{name!r} is no name for a split of tensorflow-datasets")):
            write_arrayrecord("named", {"train": source, name: source}, tmp_path)
    others = replace(source, class_names=tuple("abcdefghij"))
    with pytest.raises(DataError, match=r"^splits: val has other classes than train$"):
        write_arrayrecord("two", {"train": source, "val": others}, tmp_path)
    several = replace(source, labels=np.eye(10, dtype=np.float32)[:2])
    with pytest.raises(DataError, match=r"^splits: the images of train have several labels each"):
        write_arrayrecord("several", {"train": several}, tmp_path)
    assert not {"both", "named", "two", "several"} & {path.name for path in tmp_path.iterdir()}


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (30, 30)).save(file, "PNG")
    source = tfds_splits_of(tmp_path, file.getvalue()[:50])
    with pytest.raises(DataError, match=r"broken/1.0.0 train\[0\]: "):
        source[0]


def tfds_splits_of(folder: Path, content: bytes):
    """A prepared data set of a single record, whose image has that content."""
    from dataclasses import replace

    digits = digits_splits()["all"]().select([0, 1])
    write_arrayrecord("broken", {"all": digits}, folder)
    source = tfds_splits("broken", data_dir=folder)["train"]()
    return replace(source, records=[{"image": content, "label": 0}])


def test_another_format_is_named(tmp_path: Path) -> None:
    folder = write_arrayrecord("digits", {split: make() for split, make in digits_splits().items()}, tmp_path)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(
        DataError, match=r"array_record does not match .*tfrecord.* Prepare it anew with `tfds build digits"
    ):
        tfds_splits("digits", data_dir=tmp_path)
