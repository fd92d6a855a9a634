"""From a Config to objects: the one place that reads it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_origin

import jax
import jax.numpy as jnp
import optax

from flaxcnn import data, optim
from flaxcnn.config import Config, ConfigError
from flaxcnn.data.sources import Split
from flaxcnn.errors import UserError, did_you_mean
from flaxcnn.losses import softmax_cross_entropy
from flaxcnn.models import Classifier, create_model, with_head
from flaxcnn.train import TrainState, create_state
from flaxcnn.train.loop import Schedule
from flaxcnn.train.parallel import DataParallel
from flaxcnn.weights import abstract_variables, checkpoint, preprocessing, published_file, read_weights, start_from

PUBLISHED = "published"
"""What `model.weights` calls the published weights of the model."""


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
        phases: step from which they train -> a pattern of parameters.
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
    phases: Mapping[int, str]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    schedule: Schedule


def build(config: Config) -> Experiment:
    """Build an experiment.

    Raises:
        ConfigError: names the field that is not right.
        DataError: when the data is not there or not whole.
    """
    train_source, val_source = build_source(config, "train"), build_source(config, "val")
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
    optimizer, phases = build_optimizer(config, model, learning_rate, steps_per_epoch)
    return Experiment(
        train_source=train_source,
        val_source=val_source,
        model=model,
        train_transform=build_train_transform(config, model),
        preprocessing=build_preprocessing(config, model),
        learning_rate=learning_rate,
        optimizer=optimizer,
        phases=phases,
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
    if config.model.weights == PUBLISHED:
        with _field("model.weights"):
            options = {**checkpoint(config.model.name).options, **options}
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
        abstract_variables(model, config.data.channels)
    except (ValueError, TypeError) as error:  # an option that no network can be built with
        raise ConfigError(f"model: {config.model.name} cannot be built with these options: {error}") from error
    return with_head(model, *config.model.head) if config.model.head else model


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
    if settings.name == "digits":
        return data.digits(split, val_fraction=settings.val_fraction)
    assert settings.path is not None  # `validate` saw to it
    if not Path(settings.path).is_dir():
        raise ConfigError(f"data.path: there is no folder {settings.path}; add --data.path FOLDER")
    return data.image_folder(settings.path, split, val_fraction=settings.val_fraction, on_error=settings.on_error)


def fingerprint(source: data.Source) -> str:
    """How many examples a source has, and a hash of their keys and labels."""
    digest = hashlib.sha256(source.labels.tobytes())
    for index in range(len(source)):
        digest.update(f"{source.key(index)}\n".encode())
    return f"{len(source)} examples, sha256 {digest.hexdigest()[:16]}"


def build_preprocessing(config: Config, model: Classifier) -> data.Preprocessing:
    """The view of an image in evaluation and prediction: the config's, else the published weights' own."""
    view = data.Preprocessing(model.image_size)
    if config.model.weights == PUBLISHED:
        own = preprocessing(config.model.name)
        in_proportion = None if own.resize is None else round(own.resize * model.image_size / own.size)
        view = replace(own, size=model.image_size, resize=in_proportion)
    chosen = {name: getattr(config.data, name) for name in ("resize", "interpolation", "mean", "std")}
    given = {name: value for name, value in chosen.items() if value is not None}
    return replace(view, channels=config.data.channels, **given)


def build_train_transform(config: Config, model: Classifier) -> data.TrainTransform:
    """The view of an image in training."""
    settings, evaluation = config.data, build_preprocessing(config, model)
    return data.TrainTransform(**vars(evaluation), kind=settings.augment, flip=settings.flip, padding=settings.padding)


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


def build_optimizer(
    config: Config, model: Classifier, learning_rate: optax.Schedule, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, dict[int, str]]:
    """The optimiser, and step -> the pattern of the parameters that train from there."""
    settings = config.optimizer
    make = partial(_call, "optimizer.options", optim.OPTIMIZERS[settings.name], settings.options)
    if not settings.trainable and not settings.factors:
        return make(learning_rate), {0: ""}
    params = abstract_variables(model, config.data.channels)["params"]
    starts = {pattern: round(epoch * steps_per_epoch) for pattern, epoch in settings.trainable.items()} or {"": 0}
    if min(starts.values()) > 0:
        raise ConfigError("optimizer.trainable: nothing trains at first; give a pattern that trains from epoch 0")
    for name, patterns in (("trainable", starts), ("factors", settings.factors)):
        for pattern in patterns:
            with _field(f"optimizer.{name}"):
                optim.matching(params, pattern)
    optimizer = optim.by_group(make, learning_rate, params, trainable=starts, factors=settings.factors)
    phases = {
        step: "|".join(f"(?:{pattern})" for pattern, start in starts.items() if start <= step)
        for step in sorted(set(starts.values()))
    }
    return optimizer, phases


def initial_state(config: Config, experiment: Experiment) -> TrainState:
    """The state before the first step, initialised from the config's seed."""
    model = experiment.model
    images = jnp.zeros((1, model.image_size, model.image_size, config.data.channels), jnp.float32)
    # Jitted, or every initialiser of every layer would be compiled by itself.
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(config.train.seed), images)
    return create_state(model, experiment.optimizer, variables, seed=config.train.seed)


def with_weights(config: Config, model: Classifier, state: TrainState) -> tuple[TrainState, list[str]]:
    """The initial state with `model.weights`, and lines that say what was taken.

    Raises:
        ConfigError: when there are none, or they do not fit.
    """
    name, weights = config.model.name, config.model.weights
    if weights is None:
        return state, []
    with _field("model.weights"):
        path = published_file(checkpoint(name)) if weights == PUBLISHED else Path(weights)
        if not path.exists():
            raise ConfigError(f"there is no file or folder {path}; {PUBLISHED!r} stands for those of {name}")
        start = start_from(model, state.variables, read_weights(path).state_dict, channels=config.data.channels)
    variables = {**state.variables, **start.variables}
    variables = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), variables, state.variables)
    lines = [f"starting from the weights in {path}", *start.notes]
    return state.replace(params=variables["params"], batch_stats=variables["batch_stats"]), lines


@contextmanager
def _field(name: str) -> Iterator[None]:
    """Name the field that an error is about."""
    try:
        yield
    except UserError as error:
        raise ConfigError(f"{name}: {error.line}") from error
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


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
