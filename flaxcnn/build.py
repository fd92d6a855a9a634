"""From a Config to objects: the one place that reads it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_origin

import jax
import jax.numpy as jnp
import optax

from flaxcnn import data, optim
from flaxcnn.config import Config, ConfigError
from flaxcnn.data.splits import Split
from flaxcnn.errors import did_you_mean
from flaxcnn.losses import softmax_cross_entropy
from flaxcnn.models import Classifier, create_model
from flaxcnn.train import TrainState, create_state
from flaxcnn.train.loop import Schedule
from flaxcnn.train.parallel import DataParallel


@dataclass(frozen=True)
class Experiment:
    """What a config describes, ready to run.

    Attributes:
        train_source: training images.
        val_source: held-out images.
        model: with as many outputs as there are classes.
        train_transform: a training image and a random generator to float32 (h, w, c).
        preprocessing: an image to float32 (h, w, c), as in evaluation and prediction.
        learning_rate: of a step.
        optimizer: with that learning rate.
        loss: logits and labels to one value an example.
        schedule: when to log, evaluate, save and end.
    """

    train_source: data.Source
    val_source: data.Source
    model: Classifier
    train_transform: data.TrainTransform
    preprocessing: data.Preprocessing
    learning_rate: optax.Schedule
    optimizer: optax.GradientTransformation
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    schedule: Schedule


def build(config: Config) -> Experiment:
    """Build an experiment.

    Raises:
        ConfigError: names the field that is not right.
        DataError: when the data is not there or not whole.
    """
    train_source, val_source = build_source(config, "train"), build_source(config, "val")
    _check_sources(train_source, val_source)
    model = build_model(config, len(train_source.class_names))
    try:
        steps_per_epoch = data.steps_per_epoch(len(train_source), config.data.batch_size)
    except ValueError as error:
        raise ConfigError(f"data.{error}: add --data.batch_size {min(len(train_source), 32)}") from error
    schedule = Schedule(
        total=config.train.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        log_every=config.train.log_every,
        eval_every=config.train.eval_every * steps_per_epoch,
        save_every=config.train.save_every,
    )
    learning_rate = build_learning_rate(config, schedule)
    make_optimizer = optim.OPTIMIZERS[config.optimizer.name]
    return Experiment(
        train_source=train_source,
        val_source=val_source,
        model=model,
        train_transform=build_train_transform(config, model),
        preprocessing=build_preprocessing(config, model),
        learning_rate=learning_rate,
        optimizer=_call("optimizer.options", make_optimizer, config.optimizer.options, learning_rate),
        loss=partial(softmax_cross_entropy, label_smoothing=config.train.label_smoothing),
        schedule=schedule,
    )


def build_model(config: Config, num_classes: int) -> Classifier:
    """The config's model."""
    dtype = {"float32": None, "bfloat16": jnp.bfloat16}[config.model.dtype]
    options: dict[str, Any] = dict(config.model.options)
    for name, source in _NOT_OPTIONS.items():
        if name in options:
            raise ConfigError(f"model.options: {name} is set by {source}")
    if config.data.image_size is not None:
        options["image_size"] = config.data.image_size
    try:
        model = create_model(config.model.name, num_classes=num_classes, dtype=dtype, **options)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    size = model.image_size
    if size < model.min_image_size:
        raise ConfigError(f"data.image_size must be {model.min_image_size} or more for {config.model.name}, not {size}")
    try:
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))
    except (ValueError, TypeError) as error:  # an option that no network can be built with
        raise ConfigError(f"model: {config.model.name} cannot be built with these options: {error}") from error
    return model


_NOT_OPTIONS = {
    "num_classes": "the data",
    "dtype": "model.dtype",
    "param_dtype": "float32",
    "image_size": "data.image_size",
    "min_image_size": "the model",
}


def build_source(config: Config, split: Split) -> data.Source:
    """One split of the config's data; the seed of a split is fixed, so that it is the same for every run."""
    settings = config.data
    source = data.choose(
        build_splits(config),
        split,
        spec=settings.train_split if split == "train" else settings.val_split,
        val_fraction=settings.val_fraction,
        fold=(settings.fold, settings.folds) if settings.folds else None,
    )
    if settings.on_error == "skip" and isinstance(source, data.FolderSource):
        source = data.without_unreadable(source, split)
    if settings.cache is not None:
        return data.CachedSource(source, None if settings.cache == "memory" else settings.cache)
    return source


def build_splits(config: Config) -> data.Splits[Any]:
    """The splits of the config's data set."""
    name, path = config.data.name, config.data.path
    if name == "image_folder" and not Path(str(path)).is_dir():
        raise ConfigError(f"data.path: there is no folder {path}; add --data.path FOLDER")
    if name == "tfds":
        return data.tfds_splits(str(config.data.builder), data_dir=path, download=config.data.download)
    splits_of = {
        "digits": data.digits_splits,
        "image_folder": data.folder_splits,
        "manifest": data.manifest_splits,
        "mnist": data.mnist_splits,
        "fashion_mnist": data.fashion_mnist_splits,
        "cifar10": data.cifar10_splits,
        "cifar100": data.cifar100_splits,
        "synthetic": lambda: {"all": data.synthetic},
    }[name]
    return splits_of() if path is None else splits_of(path)


def _check_sources(train: data.Source, val: data.Source) -> None:
    if train.labels.ndim > 1:
        raise ConfigError("data: these examples have several labels each; training takes one: a column `label`")
    shared = {train.name(i) for i in range(len(train))} & {val.name(i) for i in range(len(val))}
    if shared:
        raise ConfigError(
            f"data.train_split and data.val_split share {len(shared)} examples, such as {min(shared)}: "
            f"write train[:90%] and train[90%:]"
        )


def fingerprint(source: data.Source) -> str:
    """How many examples a source has, and a hash of their keys and labels."""
    digest = hashlib.sha256(source.labels.tobytes())
    for index in range(len(source)):
        digest.update(f"{source.key(index)}\n".encode())
    return f"{len(source)} examples, sha256 {digest.hexdigest()[:16]}"


def build_preprocessing(config: Config, model: Classifier) -> data.Preprocessing:
    """The view of an image in evaluation and prediction."""
    settings = config.data
    return data.Preprocessing(
        size=model.image_size,
        resize=settings.resize,
        interpolation=settings.interpolation,
        mean=settings.mean,
        std=settings.std,
    )


def build_views(config: Config, model: Classifier) -> Callable[[Any], Any]:
    """What `evaluate` sees of an image: one view, or several stacked."""
    preprocessing = build_preprocessing(config, model)
    if config.data.views == "one":
        return preprocessing
    try:
        return data.TestTimeViews(preprocessing, config.data.views)
    except ValueError as error:
        raise ConfigError(f"data.{error}: add --data.resize {round(model.image_size * 8 / 7)}") from error


def build_train_transform(config: Config, model: Classifier) -> data.TrainTransform:
    """The view of an image in training."""
    settings = config.data
    policy = None
    if settings.policy != "none":
        # As in torchvision's references, one filter serves the crop and the policy.
        options = {"interpolation": settings.interpolation, **settings.policy_options}
        policy = _call("data.policy_options", data.POLICIES[settings.policy], options)
    return data.TrainTransform(
        size=model.image_size,
        kind=settings.augment,
        resize=settings.resize,
        flip=settings.flip,
        flip_vertically=settings.flip_vertically,
        jitter=_call("data.jitter", data.ColorJitter, settings.jitter) if settings.jitter else None,
        greyscale=settings.greyscale,
        augmentation=policy,
        erase=settings.erase,
        padding=settings.padding,
        interpolation=settings.interpolation,
        mean=settings.mean,
        std=settings.std,
    )


def build_learning_rate(config: Config, schedule: Schedule) -> optax.Schedule:
    """The learning rate of a step."""
    settings = config.optimizer
    options = dict(settings.schedule_options)
    every = options.get("every")
    if isinstance(every, (int, float)):  # the config counts epochs, the schedule steps; `_call` refuses the rest
        if not 0 < every * schedule.steps_per_epoch < float("inf"):
            raise ConfigError(f"optimizer.schedule_options: every must be above 0 epochs, not {every}")
        options["every"] = every * schedule.steps_per_epoch
    warmup_steps = round(settings.warmup_epochs * schedule.steps_per_epoch)
    if warmup_steps >= schedule.total:
        raise ConfigError(
            f"optimizer.warmup_epochs must be less than train.epochs ({config.train.epochs}), "
            f"not {settings.warmup_epochs}: add --optimizer.warmup_epochs 0"
        )
    decay = _call(
        "optimizer.schedule_options",
        optim.SCHEDULES[settings.schedule],
        options,
        settings.learning_rate,
        schedule.total - warmup_steps,
    )
    return optim.warmup(decay, warmup_steps)


def initial_state(config: Config, experiment: Experiment) -> TrainState:
    """The state before the first step, initialised from the config's seed."""
    model = experiment.model
    images = jnp.zeros((1, model.image_size, model.image_size, 3), jnp.float32)
    # Jitted, or every initialiser of every layer would be compiled by itself.
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(config.train.seed), images)
    return create_state(model, experiment.optimizer, variables, seed=config.train.seed)


def find_devices(kind: str) -> list[Any]:
    """The devices of a kind: "auto", "cpu", "gpu" or "tpu".

    Raises:
        ConfigError: when there are none.
    """
    try:
        return jax.devices(None if kind == "auto" else kind)
    except RuntimeError as error:
        extra = {"gpu": "cuda", "tpu": "tpu"}.get(kind, kind)
        raise ConfigError(
            f"device: no {kind} was found; use --device cpu, or install jax for it: pip install 'flaxcnn[{extra}]'"
        ) from error


def build_devices(config: Config) -> DataParallel:
    """The devices to compute on.

    Raises:
        ConfigError: when there are none of the kind asked for, or they do not divide the batch.
    """
    devices = find_devices(config.device)
    if config.data.batch_size % len(devices):
        raise ConfigError(
            f"data.batch_size must be a multiple of the {len(devices)} devices, not {config.data.batch_size}"
        )
    return DataParallel(devices)


def _call(field: str, function: Callable[..., Any], options: Mapping[str, Any], *arguments: Any) -> Any:
    """Call the function with keyword options, each checked by name and type."""
    parameters = inspect.signature(function, eval_str=True).parameters
    known = {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    for name, value in options.items():
        if name not in known:
            raise ConfigError(f"{field}: {function.__name__} has no {name!r}{did_you_mean(name, known)}")
        if known[name].annotation is bool and not isinstance(value, bool):
            raise ConfigError(f"{field}: {name} must be True or False, not {value!r}")
        if known[name].annotation is float and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ConfigError(f"{field}: {name} must be a number, not {value!r}")
        if get_origin(known[name].annotation) is tuple and not isinstance(value, tuple):
            raise ConfigError(f"{field}: {name} must be a pair of numbers, not {value!r}")
    missing = [name for name, p in known.items() if p.default is inspect.Parameter.empty and name not in options]
    if missing:
        raise ConfigError(f"{field}: {function.__name__} needs {', '.join(missing)}")
    try:
        return function(*arguments, **options)
    except ValueError as error:
        raise ConfigError(f"{field}: {error}") from error
