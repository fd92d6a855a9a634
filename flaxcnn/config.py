"""What an experiment is: frozen dataclasses, read from a Python file and overridden by typed flags.

The library's functions take plain arguments; only `flaxcnn.build` reads these.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from flaxcnn.errors import ConfigError
from flaxcnn.options import Options, Patterns


@dataclass(frozen=True)
class ModelConfig:
    """Which network."""

    name: str = "lenet"
    """One of `flaxcnn.list_models()`."""
    options: Options = field(default_factory=dict)
    """Other fields of its class, as `stem 3x3 dropout 0.1`; the flag replaces them all."""
    weights: str | None = None
    """To start from: `published`, or a file or a folder that `flaxcnn.load_weights` reads; None initialises all."""
    head: tuple[int, ...] = ()
    """Widths of the hidden layers, with ReLU, of a new head on the pooled features; the model's own head if empty."""
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
    be split. Of `tfds`: tensorflow-datasets' own folder if None."""
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
    channels: Literal[3, 1] = 3
    """Of the images that the network sees: 3 for colour, 1 for grey."""
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
    """Evaluation scales the short side to this before the centre crop; None scales to the image size, uncropped.

    Where the model has published weights to start from, None here and below is what these were trained with."""
    views: Literal["one", "flip", "ten_crop"] = "one"
    """Of each image in `evaluate`, their answers averaged; the evaluations during training look once."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """Of every resize; bilinear if None."""
    mean: tuple[float, float, float] | None = None
    """Of red, green, blue in [0, 1], subtracted; ImageNet's if None."""
    std: tuple[float, float, float] | None = None
    """Of red, green, blue in [0, 1], divided by; ImageNet's if None."""
    repeats: int = 1
    """Views of a training image in a row, in an epoch of the same length."""
    balanced: bool = False
    """Whether an epoch shows every class equally often."""
    decoder: Literal["pillow", "opencv"] = "pillow"
    """Of training photographs: Pillow is exact; OpenCV, for `random_resized_crop`, is faster and resizes otherwise."""
    cache: str | None = None
    """Of decoded images: `memory`, 8 GiB or a quarter of the machine's for each split, or a folder; None: not kept."""
    threads: int | None = None
    """That load images; one a core, 16 at most, if None."""
    processes: int = 0
    """That load training images, in the place of threads, for machines of more cores than one process's threads use."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated."""

    name: Literal[
        "sgd", "adagrad", "rmsprop", "adam", "adamw", "adadelta", "adamax", "nadam", "radam", "lamb", "lars"
    ] = "sgd"
    """As in torch.optim; `lamb` and `lars` for large batches."""
    learning_rate: float = 0.1
    """At the schedule's top."""
    options: Options = field(default_factory=dict)
    """torch.optim's other hyperparameters, as `momentum 0.9 nesterov True`; the flag replaces them all."""
    decay: Literal["all", "all_but_norms", "kernels"] = "all"
    """Which parameters weight decay is for; `kernels` leaves out biases as well as norms."""
    clip_norm: float | None = None
    """The norm that all gradients together are scaled down to."""
    clip_value: float | None = None
    """What each element of a gradient is clipped to."""
    schedule: Literal[
        "constant", "step", "multi_step", "exponential", "polynomial", "cosine", "cosine_restarts", "one_cycle"
    ] = "cosine"
    """Of the learning rate after the warm-up, as torch.optim.lr_scheduler's."""
    schedule_options: Options = field(default_factory=dict)
    """Its arguments by torch's names, as `step_size 30 gamma 0.1`; durations are in epochs."""
    schedule_by: Literal["step", "epoch"] = "step"
    """Whether the schedule goes on at every step, or between epochs only."""
    warmup_epochs: float = 0.0
    """Of rise to the learning rate."""
    warmup: Literal["linear", "constant"] = "linear"
    """How it rises: in a line, or in one step at the end."""
    warmup_factor: float | None = None
    """The share of the learning rate it begins with; None is the first of even rises, or a third where constant."""
    trainable: Patterns = field(default_factory=dict)
    """Regular expressions and the epoch, from 0, from which the parameters train whose paths begin with a match.

    `fc 0` trains the last layer only, `fc 0 layer4 5` a stage more after five epochs. The rest is frozen: no update, no
    weight decay, BatchNorm and dropout in evaluation. All parameters train if empty."""
    factors: Patterns = field(default_factory=dict)
    """Regular expressions, likewise, and a factor on the learning rate; the first that matches counts."""


@dataclass(frozen=True)
class TrainConfig:
    """How long, and what is watched."""

    epochs: int = 10
    """Passes over the training images."""
    steps: int | None = None
    """Updates to make, where it is not whole epochs."""
    max_minutes: float | None = None
    """From the start of the command: then it saves and ends, and the same command goes on."""
    patience: int = 0
    """Evaluations without a better `best_metric` that end the run; 0 for none."""
    seed: int = 0
    """Of initialisation, data order, augmentation, dropout, mixing."""
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """Cross-entropy over classes, or of each class by itself, for images of any number of classes."""
    label_smoothing: float = 0.0
    """Mass moved from the label to all classes; for `softmax`."""
    class_weights: tuple[float, ...] | None = None
    """Of each class in the loss."""
    aux_weight: float = 0.3
    """Of each auxiliary head's loss, for networks that have them."""
    mixup: float = 0.0
    """Alpha of mixup; 0 for none. With `cutmix` too, one of both at random for each batch."""
    cutmix: float = 0.0
    """Alpha of CutMix; 0 for none."""
    ema_decay: float | None = None
    """Of a moving average of the weights, evaluated too: torchvision's, as if there were an update an image."""
    ema_steps: int = 32
    """Steps an update of the moving average."""
    accumulate: int = 1
    """Parts of a batch that the gradient is summed over, to need less memory; BatchNorm takes each by itself."""
    remat: bool = False
    """Whether the backward pass computes the inside of blocks again, to need less memory."""
    parallel: Literal["jit", "fsdp", "pmap"] = "jit"
    """One program over all devices; that with parameters split over them too; or a program a device."""
    sync_batch_norm: bool = True
    """For `pmap`: whether BatchNorm sees the whole batch, or each device's share of it."""
    log_every: int = 10
    """Steps a training record."""
    eval_every: int = 1
    """Epochs an evaluation and a checkpoint."""
    save_every: int = 0
    """Steps a further checkpoint; 0 for none between evaluations."""
    keep: int = 3
    """Latest checkpoints kept, beside the best."""
    best_metric: Literal[
        "top1", "top5", "loss", "average_top1", "average_top5", "average_loss", "mean_average_precision", "f1"
    ] = "top1"
    """By which the best checkpoint is chosen; `average_` is of the moving average."""
    report: bool = True
    """Whether the end writes `report.html`, by an evaluation of the best checkpoint; several processes write none."""
    profile: tuple[int, int] | None = None
    """The first and last step to record for TensorBoard's profiler, in `profile/` of the run's folder."""
    wandb: str | None = None
    """The project of Weights & Biases that is shown what TensorBoard is; none if None."""


@dataclass(frozen=True)
class DistillConfig:
    """A teacher whose answers the network learns too; for `train.loss softmax`."""

    model: str | None = None
    """One of `flaxcnn.list_models()`; no teacher if None."""
    weights: str | None = None
    """Its weights: a .pth, .safetensors or Orbax checkpoint, or the folder of a run with the same classes."""
    temperature: float = 4.0
    """That softens both distributions."""
    weight: float = 0.5
    """Of the teacher's part in the loss."""


@dataclass(frozen=True)
class DistributedConfig:
    """The processes of a run over several hosts."""

    coordinator: str | None = None
    """HOST:PORT of the first process; `auto` asks Slurm, Open MPI, Kubernetes or the TPU pod. None: one process."""
    num_processes: int | None = None
    """How many there are, with HOST:PORT."""
    process_id: int | None = None
    """Which this one is, from 0, with HOST:PORT."""


@dataclass(frozen=True)
class Config:
    """An experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    workdir: str | None = None
    """The run's folder; runs/ and the config file's name if None."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """What to compute on."""

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries, JSON-serialisable."""
        return dataclasses.asdict(self)


RESUMABLE = (
    *("workdir", "device", "train.keep", "train.save_every", "train.max_minutes"),
    *("train.parallel", "train.profile", "train.report", "train.wandb"),
    *("data.path", "data.download", "data.cache", "data.threads", "data.processes"),
    *("data.eval_batch_size", "data.views"),
    *("distributed.coordinator", "distributed.num_processes", "distributed.process_id"),
)
"""Fields that may differ when a run goes on: another device changes its numbers by rounding, the others by nothing.

Another `train.parallel` likewise, and `pmap` by what each device draws for itself: dropout, stochastic depth, mixing.
That the folder of `data.path` holds the same examples is checked by itself.
"""

_RANGES = {
    "model.head": ("widths of 1 or more", lambda v: all(width >= 1 for width in v)),
    "data.val_fraction": ("above 0 and below 1", lambda v: 0 < v < 1),
    "data.folds": ("0 for none, or 2 or more", lambda v: v == 0 or v >= 2),
    "data.image_size": ("1 or more", lambda v: v is None or v >= 1),
    "data.batch_size": ("1 or more", lambda v: v >= 1),
    "data.eval_batch_size": ("1 or more", lambda v: v >= 1),
    "data.padding": ("0 or more", lambda v: v >= 0),
    "data.greyscale": ("a probability", lambda v: 0 <= v <= 1),
    "data.erase": ("a probability", lambda v: 0 <= v <= 1),
    "data.resize": ("1 or more", lambda v: v is None or v >= 1),
    "data.mean": ("in [0, 1], as of pixels divided by 255", lambda v: v is None or all(0 <= x <= 1 for x in v)),
    "data.std": ("above 0 and at most 1, as the mean", lambda v: v is None or all(0 < x <= 1 for x in v)),
    "data.repeats": ("1 or more", lambda v: v >= 1),
    "data.builder": ("a builder's name", lambda v: v != ""),
    "data.cache": ("`memory` in small letters or a folder", lambda v: v in (None, "memory") or _is_folder(v)),
    "data.threads": ("1 or more", lambda v: v is None or v >= 1),
    "data.processes": ("0 or more", lambda v: v >= 0),
    "optimizer.learning_rate": ("above 0", lambda v: 0 < v < float("inf")),
    "optimizer.clip_norm": ("above 0", lambda v: v is None or v > 0),
    "optimizer.clip_value": ("above 0", lambda v: v is None or v > 0),
    "optimizer.warmup_epochs": ("0 or more", lambda v: 0 <= v < float("inf")),
    "optimizer.warmup_factor": ("from 0 to 1", lambda v: v is None or 0 <= v <= 1),
    "optimizer.trainable": ("epochs of 0 or more", lambda v: all(0 <= epoch < float("inf") for epoch in v.values())),
    "optimizer.factors": ("factors above 0", lambda v: all(0 < factor < float("inf") for factor in v.values())),
    "train.epochs": ("1 or more", lambda v: v >= 1),
    "train.steps": ("1 or more", lambda v: v is None or v >= 1),
    "train.max_minutes": ("above 0", lambda v: v is None or v > 0),
    "train.patience": ("0 or more", lambda v: v >= 0),
    "train.class_weights": ("above 0", lambda v: v is None or all(0 < x < float("inf") for x in v)),
    "train.aux_weight": ("0 or more", lambda v: 0 <= v < float("inf")),
    "train.mixup": ("0 or more", lambda v: 0 <= v < float("inf")),
    "train.cutmix": ("0 or more", lambda v: 0 <= v < float("inf")),
    "train.ema_decay": ("at least 0 and below 1", lambda v: v is None or 0 <= v < 1),
    "train.ema_steps": ("1 or more", lambda v: v >= 1),
    "train.accumulate": ("1 or more", lambda v: v >= 1),
    "train.wandb": ("the name of a project", lambda v: v != ""),
    "train.profile": ("a first step of 1 or more and one no earlier", lambda v: v is None or 1 <= v[0] <= v[1]),
    "distill.temperature": ("above 0", lambda v: 0 < v < float("inf")),
    "distill.weight": ("from 0 to 1", lambda v: 0 <= v <= 1),
    "train.seed": ("from 0 to 4294967295", lambda v: 0 <= v < 2**32),
    "train.label_smoothing": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    "train.log_every": ("1 or more", lambda v: v >= 1),
    "train.eval_every": ("1 or more", lambda v: v >= 1),
    "train.save_every": ("0 or more", lambda v: v >= 0),
    "train.keep": ("1 or more", lambda v: v >= 1),
}


def _is_folder(name: str) -> bool:
    return name != "" and name.lower() != "memory"


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
    if config.train.loss == "sigmoid" and config.train.label_smoothing:
        raise ConfigError("train.label_smoothing is for --train.loss softmax")
    if config.train.parallel != "pmap" and not config.train.sync_batch_norm:
        raise ConfigError(f"train.sync_batch_norm False is for --train.parallel pmap, not {config.train.parallel}")
    if config.train.best_metric.startswith("average_") and config.train.ema_decay is None:
        raise ConfigError(f"train.best_metric {config.train.best_metric} needs --train.ema_decay")
    if (config.distill.model is None) != (config.distill.weights is None):
        raise ConfigError("distill.model and distill.weights go together: --distill.model NAME --distill.weights FILE")
    if config.data.policy_options and config.data.policy == "none":
        raise ConfigError("data.policy_options are for a policy: add --data.policy NAME")
    if config.data.download and config.data.name != "tfds":
        raise ConfigError(f"data.download is for --data.name tfds, not {config.data.name}")
    if config.distill.model is not None and config.train.loss != "softmax":
        raise ConfigError("distill.model is for --train.loss softmax: a teacher's answers are shares of one label")
    explicit = (config.distributed.num_processes is not None, config.distributed.process_id is not None)
    if config.distributed.coordinator in (None, "auto") and any(explicit):
        raise ConfigError("distributed.coordinator must be HOST:PORT with distributed.num_processes and process_id")
    if config.distributed.coordinator not in (None, "auto"):
        if not all(explicit):
            raise ConfigError("distributed.coordinator HOST:PORT needs distributed.num_processes and process_id")
        if not re.search(r":\d+$", config.distributed.coordinator):
            raise ConfigError(f"distributed.coordinator must be HOST:PORT, not {config.distributed.coordinator}")
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
    if data.decoder == "opencv" and data.name not in ("image_folder", "manifest", "tfds"):
        raise ConfigError(f"data.decoder is for images that are decoded, not for --data.name {data.name}")
    if data.decoder == "opencv" and data.augment != "random_resized_crop":
        raise ConfigError("data.decoder opencv is for --data.augment random_resized_crop")
    if data.decoder == "opencv" and data.cache is not None:
        raise ConfigError("data.decoder opencv decodes a part anew in every epoch: leave out data.cache")
    if data.folds and data.train_split is not None:
        raise ConfigError("data.folds and data.train_split exclude each other: give one")
    if not 0 <= data.fold < max(data.folds, 1):
        wanted = f"from 0 to {data.folds - 1}" if data.folds else "0 without data.folds: add --data.folds N"
        raise ConfigError(f"data.fold must be {wanted}, not {data.fold}")


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
    if origin is tuple and arguments[1:] == (...,):
        return isinstance(value, tuple) and all(_is_of_type(each, arguments[0]) for each in value)
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
        "distill": DistillConfig,
        "distributed": DistributedConfig,
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
