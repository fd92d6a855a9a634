"""Data sets in ArrayRecord files: tensorflow-datasets' builders, read and written without TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flaxcnn.data.images import DataError, Decode, decode
from flaxcnn.data.source import Example, Source
from flaxcnn.errors import did_you_mean


def tfds_splits(
    builder: str, *, data_dir: str | os.PathLike[str] | None = None, download: bool = False
) -> dict[str, Callable[[], PreparedSource]]:
    """The splits of a data set that tensorflow-datasets has prepared as ArrayRecord.

    Args:
        builder: its name, such as `imagenette/160px`: one of tensorflow-datasets' own, or one that lies in `data_dir`.
        data_dir: where it was prepared; by default tensorflow-datasets' own, TFDS_DATA_DIR of the environment or
            ~/tensorflow_datasets.
        download: whether to download and prepare it if need be. Otherwise nothing touches the network.

    Returns:
        The name of each split and a function that makes its source.

    Raises:
        DataError: there is no such builder, it is not prepared, or it does not hold images with a label.
    """
    import tensorflow_datasets as tfds

    folder = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    made = _builder(builder, folder)
    with _quiet():
        is_prepared = made.is_prepared()
    if not is_prepared:
        if not download:
            raise DataError(_how_to_prepare(builder, folder, made))
        _prepare(made)
    features = made.info.features
    if not isinstance(features, tfds.features.FeaturesDict) or not {"image", "label"} <= set(features):
        raise DataError(f"{builder}: it has no features `image` and `label` to train a classifier on")
    if not isinstance(features["label"], tfds.features.ClassLabel):
        raise DataError(f"{builder}: its feature `label` is not a class")
    return {str(split): partial(_open, made, str(split)) for split in made.info.splits}


def _builder(name: str, folder: Path) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    if name.startswith("huggingface:"):  # its library asks the network before it is known what is there
        raise DataError(f"{name}: only tensorflow-datasets' own data sets are read, and what lies in {folder}")
    try:
        with _quiet():
            return tfds.builder(name, data_dir=str(folder), file_format="array_record")
    except DatasetNotFoundError as error:
        known = {*tfds.list_builders(with_community_datasets=False), *_datasets_in(folder)}
        for inside in (folder, *folder.glob("*")):
            if (inside / "dataset_info.json").is_file():
                above = folder.parent if inside != folder else folder.parents[1]
                raise DataError(f"{folder} is a data set, not the folder of data sets", f"name {above}") from error
        if (plain := re.split("[:/]", name)[0]) != name and plain in _datasets_in(folder):
            there = sorted(file.parent.name for file in (folder / plain).glob("*/dataset_info.json"))
            raise DataError(f"{folder} has no {name!r}; of {plain} there is {', '.join(there)}") from error
        raise DataError(f"tensorflow-datasets has no data set {name!r}{did_you_mean(name, known)}") from error
    except (ValueError, AssertionError) as error:  # the latter of no such version
        reason = " ".join(str(error).split()).rpartition('}": ')[2]  # without the builder's arguments
        anew = f" Prepare it anew with `tfds build {name} --file_format=array_record`." if "format" in reason else ""
        raise DataError(f"{name}: {reason[:200]}{anew}") from error
    except ImportError as error:
        raise _needs(name, error) from error


def _needs(name: str, error: ImportError) -> DataError:
    return DataError(f"{name}: this data set's builder needs {error.name or 'tensorflow'}: install it")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without absl's warnings of data that is not there, of which a `DataError` says more."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _datasets_in(folder: Path) -> list[str]:
    of_versions = folder.glob("*/*/dataset_info.json")
    of_configs = (file.parent for file in folder.glob("*/*/*/dataset_info.json"))
    return sorted({file.parents[1].relative_to(folder).as_posix() for file in (*of_versions, *of_configs)})


def _how_to_prepare(name: str, folder: Path, builder: Any) -> str:
    by_hand = ""
    if getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None):
        by_hand = f"; its files are not public: put them into {folder / 'downloads' / 'manual'} first"
    others = _datasets_in(folder)
    there = f" (what is there: {', '.join(others)})" if others else ""
    return (
        f"{name} is not prepared in {folder}{there}; prepare it with --data.download True, "
        f"or name the folder where it is: --data.path DIR{by_hand}"
    )


def _prepare(builder: Any) -> None:
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.extractor import ExtractError, UnsafeArchiveError
    from tensorflow_datasets.core.download.util import DownloadError

    try:
        builder.download_and_prepare(file_format="array_record")
    except ModuleNotFoundError as error:
        if "tensorflow" not in str(error):
            raise _needs(builder.name, error) from error
        raise DataError(
            f"{builder.name}: its builder encodes images with TensorFlow, which is not installed; where it is, prepare "
            f"it with `tfds build {builder.name} --file_format=array_record`, and copy the folder {builder.data_path}"
        ) from error
    except (
        *(AssertionError, OSError),
        *(DownloadError, NonMatchingChecksumError, ExtractError, UnsafeArchiveError),
    ) as error:
        raise DataError(f"{builder.name} cannot be prepared: {' '.join(str(error).split())}") from error


def _open(builder: Any, split: str) -> PreparedSource:
    import tensorflow_datasets as tfds

    folder, class_names = Path(builder.data_path), tuple(builder.info.features["label"].names)
    with _naming(folder):
        records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return PreparedSource(records, class_names, split, folder)


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Raises DataError for what ArrayRecord's readers raise of files that are missing, cut or damaged."""
    try:
        yield
    except (OSError, RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{folder}: its records cannot be read ({reason})", "copy or prepare it anew") from error


@dataclass(frozen=True, eq=False)
class PreparedSource:
    """Records of ArrayRecord files, decoded when they are read."""

    records: Any  # a sequence of mappings; image: the bytes of a file; label: int
    class_names: tuple[str, ...]
    split: str
    folder: Path
    rows: np.ndarray | None = None  # (n,) which records; None for all
    decode: Decode = decode

    def __len__(self) -> int:
        return len(self.records) if self.rows is None else len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self._row(index)
        if not 0 <= row < len(self.records):  # which also ends a loop over the source
            raise IndexError(f"{self.split} has {len(self.records)} examples, no number {row}")
        with _naming(self.folder):
            record = self.records[row]
            image, label = record["image"], int(record["label"])
        return {"image": self.decode(image, self.name(index)), "label": label}

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) int64, read once from all records and kept beside them where that folder can be written."""
        labels = self._all_labels()
        return labels if self.rows is None else labels[self.rows]

    def _all_labels(self) -> np.ndarray:
        file = self.folder / f"labels-{self.split}-{self.version[:16]}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):  # not there yet, or damaged: the records have them
            return np.load(file)
        labels = np.empty(len(self.records), np.int64)
        for start in range(0, len(labels), 256):  # many at a time take half as long, and all of them too much memory
            rows = range(start, min(start + 256, len(labels)))
            with _naming(self.folder):
                labels[rows] = [record["label"] for record in self.records.__getitems__([*rows])]
        unfinished = file.with_suffix(f".{os.getpid()}.npy")
        with contextlib.suppress(OSError):  # a folder that cannot be written, or is full, does without
            try:
                np.save(unfinished, labels)
                unfinished.replace(file)
            finally:
                unfinished.unlink(missing_ok=True)
        return labels

    @cached_property
    def version(self) -> str:
        """Another one after another preparation: the names, sizes and times of the data set's files."""
        files = sorted((*self.folder.glob("dataset_info.json"), *self.folder.glob("*array_record*")))
        stats = [(file.name, file.stat()) for file in files]
        text = " ".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)
        return hashlib.sha256(text.encode()).hexdigest()

    def _row(self, index: int) -> int:
        return index if self.rows is None else int(self.rows[index])

    def name(self, index: int) -> str:
        return f"{self.folder} {self.key(index)}"

    def key(self, index: int) -> str:
        return f"{self.split}[{self._row(index)}]"

    def select(self, indices: Sequence[int] | np.ndarray) -> PreparedSource:
        rows = np.asarray(indices)
        return replace(self, rows=rows if self.rows is None else self.rows[rows])


def write_arrayrecord(name: str, splits: Mapping[str, Source], data_dir: str | os.PathLike[str]) -> Path:
    """Writes a data set as tensorflow-datasets' ArrayRecord files, in the order that it has.

    Args:
        name: what `tfds_splits` will know it by: lower case, digits and underscores.
        splits: of the same classes, an example with one label; "all" becomes "train", for tensorflow-datasets keeps
            that word for itself.
        data_dir: the folder to put it into.

    Returns:
        The folder of the data set.

    Raises:
        DataError: there is one of that name here or among tensorflow-datasets' own, or an image cannot be read, or the
            folder not be written.
    """
    import tensorflow_datasets as tfds

    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
        raise DataError(f"{name!r} is no name for a data set: use lower case, digits and underscores")
    if name in tfds.list_builders(with_community_datasets=False):  # which would be read in its place
        raise DataError(f"{name!r} is one of tensorflow-datasets' own data sets: choose another name")
    if not splits:
        raise DataError("splits: expected one or more")
    if "all" in splits:
        if "train" in splits:
            raise DataError("splits: 'all' would be called 'train', and there is one: rename either")
        splits = {"train" if split == "all" else split: source for split, source in splits.items()}
    class_names = next(iter(splits.values())).class_names
    for split, source in splits.items():
        if re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII) is None:
            raise DataError(f"{split!r} is no name for a split of tensorflow-datasets: use letters and digits")
        if source.class_names != class_names:
            raise DataError(f"splits: {split} has other classes than {next(iter(splits))}")
        if source.labels.ndim > 1:
            raise DataError(f"splits: the images of {split} have several labels each; ArrayRecord takes one")

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = tfds.features.FeaturesDict(
                {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=list(class_names))}
            )
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: self._generate_examples(source) for split, source in splits.items()}

        def _generate_examples(self, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:  # type: ignore[override]
            for i in range(len(source)):
                yield i, {"image": _encoded(source, i), "label": int(source.labels[i])}

    Builder.name = name
    with _quiet(), contextlib.redirect_stdout(io.StringIO()):  # it would say that it downloads
        builder = Builder(data_dir=str(data_dir), file_format="array_record")
        if builder.is_prepared():
            raise DataError(f"{builder.data_path} is there already: remove it, or choose another name")
        tfds.disable_progress_bar()
        try:
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
        except OSError as error:
            raise DataError(f"{data_dir}: cannot be written: {error.strerror or error}") from error
    return Path(builder.data_path)


def _encoded(source: Source, index: int) -> bytes:
    """The file of an example as it is, where it is RGB already; else a PNG file."""
    try:
        decoded = source[index]["image"]
    except DataError as error:
        raise DataError(error.reason, "mend or remove the file") from error
    path = Path(source.name(index))
    if path.is_file():
        with Image.open(path) as image:
            if image.mode == "RGB" and image.format in ("JPEG", "PNG") and image.getexif().get(0x0112, 1) == 1:
                return path.read_bytes()
    file = io.BytesIO()
    decoded.save(file, "PNG")
    return file.getvalue()
