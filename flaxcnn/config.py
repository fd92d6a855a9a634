"""What an experiment is: frozen dataclasses, read from a Python file and overridden by typed flags.

The library's functions take plain arguments; only `flaxcnn.build` reads these.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.constructors import PrimitiveConstructorSpec

from flaxcnn.errors import UserError

Value = bool | int | float | str | tuple[float, float]


class ConfigError(UserError):
    """A field, or a config file, that is not right."""


def _parse_options(words: list[str]) -> dict[str, Any]:
    """`stem 3x3 betas 0.9 0.95` to names and values; several numbers in a row are one value."""
    values: dict[str, Any] = {}
    rest = list(words)
    while rest:
        name = rest.pop(0)
        if not name.isidentifier() or not rest:
            raise ValueError("write names and values, such as `dropout 0.1 stem 3x3`")
        value = [_parse_value(rest.pop(0))]
        while rest and isinstance(number := _parse_value(rest[0]), (int, float)) and not isinstance(number, bool):
            value.append(number)
            rest.pop(0)
        values[name] = value[0] if len(value) == 1 else tuple(value)
    return values


def _parse_value(word: str) -> bool | int | float | str:
    if word in ("True", "False"):
        return word == "True"
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(word)
    return word


def _show_options(options: dict[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        words += [name, *map(str, value if isinstance(value, tuple) else (value,))]
    return words


Options = Annotated[
    dict[str, Value],
    # tyro's own flags for a dictionary depend on what is in it by default.
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME VALUE ...]",
        instance_from_str=_parse_options,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=_show_options,
    ),
]


@dataclass(frozen=True)
class ModelConfig:
    """Which network."""

    name: str = "lenet"
    """One of `flaxcnn.list_models()`."""
    options: Options = field(default_factory=dict)
    """Other fields of its class, as `stem 3x3 dropout 0.1`; the flag replaces them all."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters and statistics are float32."""


@dataclass(frozen=True)
class DataConfig:
    """Which images, and what is done to them."""

    name: Literal[
        "digits", "image_folder", "manifest", "mnist", "fashion_mnist", "cifar10", "cifar100", "tfds", "synthetic"
    ] = "digits"
    """`digits`: 1,797 handwritten digits that come with scikit-learn. `image_folder`: a folder a class. `manifest`: a
    CSV or JSON-lines file of paths and labels. `mnist`, `fashion_mnist`, `cifar10`, `cifar100`: the published files.
    `tfds`: what tensorflow-datasets prepared. `synthetic`: made up, to measure with."""
    path: str | None = None
    """Where the data is. Of an image folder: `train/` and `val/` with a folder a class each, or one folder a class to
    be split. Of `tfds`: ~/tensorflow_datasets if None."""
    builder: str | None = None
    """Of `tfds`, such as `cifar10` or `imagenette/160px`."""
    download: bool = False
    """Whether `tfds` may download what is missing; nothing else ever touches the network."""
    val_fraction: float = 0.2
    """Held out where the data has no split of its own."""
    train_split: str | None = None
    """A named split or a slice of one, such as `train[:90%]`, with `val_split`; the data's own if None."""
    val_split: str | None = None
    """Such as `train[90%:]` or `test`."""
    folds: int = 0
    """Equal parts that the training split is divided into, of which `fold` is held out; 0 for none."""
    fold: int = 0
    """From 0."""
    on_error: Literal["fail", "skip"] = "fail"
    """What an unreadable image does: end the run, or be left out and counted."""
    image_size: int | None = None
    """Height and width in pixels; the model's own if None."""
    batch_size: int = 64
    """Training images a step, over all devices."""
    eval_batch_size: int = 256
    """Evaluation images a step, over all devices; every image counts once whatever it is."""
    augment: Literal["none", "pad_crop", "random_resized_crop"] = "none"
    """Of training images: `none`, evaluation's view; `pad_crop`, that padded and cropped; a random part, resized."""
    padding: int = 4
    """Pixels on every side, for `pad_crop`."""
    flip: bool = False
    """Whether training images are mirrored at random."""
    flip_vertically: bool = False
    """Whether they are mirrored top to bottom at random."""
    jitter: Options = field(default_factory=dict)
    """Random changes of colour, as `brightness 0.4 contrast 0.4 saturation 0.4 hue 0.1`; the flag replaces them all."""
    greyscale: float = 0.0
    """The probability that a training image loses its colours."""
    policy: Literal["none", "rand_augment", "trivial_augment", "auto_augment", "augmix"] = "none"
    """Of automatic augmentation."""
    policy_options: Options = field(default_factory=dict)
    """The policy's, as `num_ops 2 magnitude 9`; `auto_augment` takes `policy cifar10`."""
    erase: float = 0.0
    """The probability that a part of a training image is erased."""
    resize: int | None = None
    """Evaluation scales the short side to this before the centre crop; None scales to the image size, uncropped."""
    views: Literal["one", "flip", "ten_crop"] = "one"
    """Of each image in `evaluate`, their answers averaged; the evaluations during training look once."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Of every resize."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of red, green, blue in [0, 1], subtracted."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Of red, green, blue in [0, 1], divided by."""
    repeats: int = 1
    """Views of a training image in a row, in an epoch of the same length."""
    balanced: bool = False
    """Whether an epoch shows every class equally often."""
    cache: str | None = None
    """Of decoded images: `memory`, or a folder; None decodes them in every epoch."""
    threads: int | None = None
    """That load images; one a core if None."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated."""

    name: Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"] = "sgd"
    """As in torch.optim."""
    learning_rate: float = 0.1
    """At the schedule's top."""
    options: Options = field(default_factory=dict)
    """torch.optim's other hyperparameters, as `momentum 0.9 nesterov True`; the flag replaces them all."""
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    """Of the learning rate after the warm-up. `exponential` takes `gamma` every `every` epochs."""
    schedule_options: Options = field(default_factory=dict)
    """The schedule's other arguments: `final` of cosine; `gamma` and `every` (epochs) of exponential."""
    warmup_epochs: float = 0.0
    """Of linear rise to the learning rate."""


@dataclass(frozen=True)
class TrainConfig:
    """How long, and what is watched."""

    epochs: int = 10
    """Passes over the training images."""
    seed: int = 0
    """Of initialisation, data order, augmentation, dropout."""
    label_smoothing: float = 0.0
    """Mass moved from the label to all classes."""
    log_every: int = 10
    """Steps a training record."""
    eval_every: int = 1
    """Epochs an evaluation and a checkpoint."""
    save_every: int = 0
    """Steps a further checkpoint; 0 for none between evaluations."""
    keep: int = 3
    """Latest checkpoints kept, beside the best."""


@dataclass(frozen=True)
class Config:
    """An experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    workdir: str | None = None
    """The run's folder; runs/ and the config file's name if None."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """What to compute on."""

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries, JSON-serialisable."""
        return dataclasses.asdict(self)


RESUMABLE = (
    *("workdir", "device", "train.keep", "train.save_every"),
    *("data.path", "data.download", "data.cache", "data.threads", "data.eval_batch_size"),
)
"""Fields that may differ when a run goes on: another device changes its numbers by rounding, the others by nothing.

That the folder of `data.path` holds the same examples is checked by itself.
"""

_RANGES = {
    "data.val_fraction": ("above 0 and below 1", lambda v: 0 < v < 1),
    "data.folds": ("0 for none, or 2 or more", lambda v: v == 0 or v >= 2),
    "data.image_size": ("1 or more", lambda v: v is None or v >= 1),
    "data.batch_size": ("1 or more", lambda v: v >= 1),
    "data.eval_batch_size": ("1 or more", lambda v: v >= 1),
    "data.padding": ("0 or more", lambda v: v >= 0),
    "data.greyscale": ("a probability", lambda v: 0 <= v <= 1),
    "data.erase": ("a probability", lambda v: 0 <= v <= 1),
    "data.resize": ("1 or more", lambda v: v is None or v >= 1),
    "data.mean": ("finite", lambda v: all(map(math.isfinite, v))),
    "data.std": ("above 0", lambda v: all(0 < x < float("inf") for x in v)),
    "data.repeats": ("1 or more", lambda v: v >= 1),
    "data.cache": ("`memory` or a folder", lambda v: v != ""),
    "data.threads": ("1 or more", lambda v: v is None or v >= 1),
    "optimizer.learning_rate": ("above 0", lambda v: 0 < v < float("inf")),
    "optimizer.warmup_epochs": ("0 or more", lambda v: 0 <= v < float("inf")),
    "train.epochs": ("1 or more", lambda v: v >= 1),
    "train.seed": ("from 0 to 4294967295", lambda v: 0 <= v < 2**32),
    "train.label_smoothing": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    "train.log_every": ("1 or more", lambda v: v >= 1),
    "train.eval_every": ("1 or more", lambda v: v >= 1),
    "train.save_every": ("0 or more", lambda v: v >= 0),
    "train.keep": ("1 or more", lambda v: v >= 1),
}


def validate(config: Config) -> Config:
    """Return the config if every field is of its type and in its range.

    Raises:
        ConfigError: names the first field that is not.
    """
    check_types(config)
    for name, (wanted, is_right) in _RANGES.items():
        section, _, leaf = name.partition(".")
        value = getattr(getattr(config, section), leaf)
        if not is_right(value):
            raise ConfigError(f"{name} must be {wanted}, not {value}")
    resize, size = config.data.resize, config.data.image_size
    if resize is not None and size is not None and resize < size:
        raise ConfigError(f"data.resize must be data.image_size ({size}) or more, not {resize}")
    if config.workdir == "":
        raise ConfigError("workdir must name a folder: --workdir DIR")
    _validate_data(config.data)
    return config


_NEED_PATH = {
    "image_folder": "the image folder: --data.path FOLDER",
    "manifest": "the manifest: --data.path FILE.csv",
    "mnist": "the folder with MNIST's files: --data.path FOLDER",
    "cifar10": "the archive or its folder: --data.path FOLDER",
    "cifar100": "the archive or its folder: --data.path FOLDER",
}
_EMBEDDED = {"digits": "the digits are embedded", "synthetic": "the images are made up"}


def _validate_data(data: DataConfig) -> None:
    if data.name in _NEED_PATH and data.path is None:
        raise ConfigError(f"data.path must name {_NEED_PATH[data.name]}")
    if data.name in _EMBEDDED and data.path is not None:
        raise ConfigError(f"data.path is not for --data.name {data.name}: {_EMBEDDED[data.name]}")
    if (data.name == "tfds") != (data.builder is not None):
        raise ConfigError("data.builder and --data.name tfds go together: --data.name tfds --data.builder NAME")
    if data.on_error == "skip" and data.name not in ("image_folder", "manifest"):
        raise ConfigError(f"data.on_error skip is for files, not for --data.name {data.name}")
    if data.cache is not None and data.name not in ("image_folder", "manifest", "tfds"):
        raise ConfigError(f"data.cache is for images that are decoded, not for --data.name {data.name}")
    if (data.train_split is None) != (data.val_split is None):
        raise ConfigError("data.train_split and data.val_split go together: give both")
    if data.folds and data.train_split is not None:
        raise ConfigError("data.folds and data.train_split exclude each other: give one")
    if not 0 <= data.fold < max(data.folds, 1):
        raise ConfigError(f"data.fold must be below data.folds ({data.folds}), not {data.fold}")


def check_types(section: Any, prefix: str = "") -> None:
    """Check what Python does not: that every field of a config or a section of one is of its type.

    Raises:
        ConfigError: names the first field that is not.
    """
    for name, hint in get_type_hints(type(section)).items():
        value = getattr(section, name)
        if not _is_of_type(value, hint):
            raise ConfigError(f"{prefix}{name} must be {getattr(hint, '__name__', None) or hint}, not {value!r}")
        if dataclasses.is_dataclass(value):
            check_types(value, f"{prefix}{name}.")


def _is_of_type(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (Union, UnionType):
        return any(_is_of_type(value, argument) for argument in arguments)
    if origin is dict:
        return isinstance(value, dict) and all(_is_of_type(each, arguments[1]) for each in value.values())
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(arguments) and all(map(_is_of_type, value, arguments))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def from_dict(values: dict[str, Any]) -> Config:
    """The config that `Config.to_dict` made these values of, by way of JSON.

    Raises:
        ConfigError: when a field is unknown: another version wrote it.
    """
    sections: dict[str, Any] = {
        "model": ModelConfig,
        "data": DataConfig,
        "optimizer": OptimizerConfig,
        "train": TrainConfig,
    }
    try:
        return Config(**{k: sections[k](**_tuples(v)) if k in sections else v for k, v in values.items()})
    except TypeError as error:
        raise ConfigError(f"this is not a config of this version of flaxcnn: {error}") from error


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only."""
    return {
        key: tuple(value) if isinstance(value, list) else _tuples(value) if isinstance(value, dict) else value
        for key, value in values.items()
    }
