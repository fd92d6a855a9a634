"""From a Config to objects: the one place that reads it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxcnn import data, optim, schedules
from flaxcnn.config import Config, ConfigError, from_dict
from flaxcnn.data.manifest import MANIFEST_SUFFIXES
from flaxcnn.data.mixing import Mixing, choice, cutmix, mixup
from flaxcnn.data.normalisation import device_normalisation
from flaxcnn.data.splits import Split
from flaxcnn.errors import UserError
from flaxcnn.losses import Loss, distillation, sigmoid_binary_cross_entropy, softmax_cross_entropy
from flaxcnn.models import Classifier, abstract_variables, create_model, with_head
from flaxcnn.options import call_with_options
from flaxcnn.train import TrainState, create_state, make_train_step
from flaxcnn.train.averaging import Average, decay_per_update, moving_average, warmup_steps
from flaxcnn.train.loop import Schedule
from flaxcnn.train.parallel import DataParallel, FullySharded, PerDevice
from flaxcnn.train.run import RunFolder
from flaxcnn.train.step import Step
from flaxcnn.weights import (
    checkpoint,
    load_weights,
    preprocessing,
    published_file,
    read_weights,
    start_from,
)

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
        teacher: a model and its variables, to learn from.
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
    loss: Loss
    teacher: tuple[Classifier, Any] | None
    schedule: Schedule


def build(config: Config) -> Experiment:
    """Build an experiment.

    Raises:
        ConfigError: names the field that is not right.
        DataError: when the data is not there or not whole.
    """
    train_source, val_source = build_sources(config)
    _check_labels(config, train_source)
    model = build_model(config, len(train_source.class_names))
    try:
        steps_per_epoch = data.steps_per_epoch(len(train_source), config.data.batch_size)
    except ValueError as error:
        raise ConfigError(f"data.{error}: add --data.batch_size {min(len(train_source), 32)}") from error
    schedule = Schedule(
        total=config.train.steps or config.train.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        log_every=config.train.log_every,
        eval_every=config.train.eval_every * steps_per_epoch,
        save_every=config.train.save_every,
    )
    if config.train.profile is not None and config.train.profile[1] > schedule.total:
        last = config.train.profile[1]
        raise ConfigError(f"train.profile must end by the run's last step ({schedule.total}), not {last}")
    build_views(config, model)  # for the report at the end, which would be late to find a mistake
    learning_rate = build_learning_rate(config, schedule)
    optimizer, phases = build_optimizer(config, model, learning_rate, steps_per_epoch)
    if max(phases) >= schedule.total:
        raise ConfigError("optimizer.trainable: a pattern's epoch is not before the end of the run")
    return Experiment(
        train_source=train_source,
        val_source=val_source,
        model=model,
        train_transform=build_train_transform(config, model),
        preprocessing=build_preprocessing(config, model),
        learning_rate=learning_rate,
        optimizer=optimizer,
        phases=phases,
        loss=build_loss(config, len(train_source.class_names)),
        teacher=build_teacher(config, train_source.class_names, model.image_size),
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
            row = checkpoint(config.model.name)
        options = {**row.options, **options, "image_size": row.size}
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
    "axis_name": "train.parallel",
}


def build_sources(config: Config) -> tuple[data.Source, data.Source]:
    """What the config trains on and what it holds out; what both are a part of is read once."""
    if (config.data.train_split is None) != (config.data.val_split is None):
        raise ConfigError("data.train_split and data.val_split go together: give both")
    splits = {name: cache(make) for name, make in build_splits(config).items()}
    train, val = _part_of(splits, config, "train"), _part_of(splits, config, "val")
    if train.labels.ndim > 1 and config.data.balanced:
        raise ConfigError("data.balanced is for examples of one label each")
    if config.data.repeats > len(train):
        raise ConfigError(f"data.repeats must be at most the {len(train)} training images, not {config.data.repeats}")
    if config.data.train_split is not None:  # else they are disjoint by construction
        _check_disjoint(train, val, config.data.train_split.partition("[")[0])
    return train, val


def build_source(config: Config, split: Split) -> data.Source:
    """One of them."""
    return _part_of(build_splits(config), config, split)


def _part_of(splits: data.Splits[Any], config: Config, split: Split) -> data.Source:
    """A split's seed is fixed, so that it is the same for every run."""
    settings = config.data
    source = data.choose(
        splits,
        split,
        spec=settings.train_split if split == "train" else settings.val_split,
        val_fraction=settings.val_fraction,
        fold=(settings.fold, settings.folds) if settings.folds else None,
    )
    if settings.on_error == "skip" and isinstance(source, data.FolderSource):
        source = data.without_unreadable(source, split)
    if settings.decoder == "opencv" and split == "train":
        return replace(source, decode=_opencv_decode())
    if settings.cache == "memory":
        return data.CachedSource(source)
    return source if settings.cache is None else data.CachedSource(source, Path(settings.cache).expanduser())


def _opencv_decode() -> Callable[[bytes, str], Any]:
    try:
        from flaxcnn.data.opencv import decode
    except ImportError as error:
        raise ConfigError("data.decoder opencv needs OpenCV: pip install 'flaxcnn[opencv]'") from error
    return decode


def build_splits(config: Config) -> data.Splits[Any]:
    """The splits of the config's data set."""
    name, path = config.data.name, config.data.path
    path = None if path is None else str(Path(path).expanduser())
    if name == "image_folder" and Path(str(path)).suffix.lower() in MANIFEST_SUFFIXES and Path(str(path)).is_file():
        raise ConfigError(f"data.path: {path} is a file, not a folder: for a manifest, add --data.name manifest")
    if name == "image_folder" and Path(str(path)).is_file():
        raise ConfigError(f"data.path: {path} is a file, not a folder: if it is an archive, unpack it")
    if name == "image_folder" and not Path(str(path)).is_dir():
        raise ConfigError(
            f"data.path: there is no folder {path}; add --data.path FOLDER, "
            f"with FOLDER/<class>/<image>, or FOLDER/train/<class> and FOLDER/val/<class>"
        )
    kept = config.data.cache
    if name == "image_folder" and kept not in (None, "memory") and _lies_within(str(kept), str(path)):
        raise ConfigError(f"data.cache {kept} lies within data.path {path}; choose another folder")
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


def _lies_within(path: str, folder: str) -> bool:
    return Path(path).expanduser().resolve().is_relative_to(Path(folder).resolve())


def _check_labels(config: Config, train: data.Source) -> None:
    if train.labels.ndim > 1 and config.train.loss != "sigmoid":
        raise ConfigError("data: these examples may have several labels each: add --train.loss sigmoid")
    if train.labels.ndim == 1 and config.train.best_metric in ("mean_average_precision", "f1"):
        raise ConfigError(f"train.best_metric {config.train.best_metric} is for examples of several labels each")


def _check_disjoint(train: data.Source, val: data.Source, whole: str) -> None:
    shared = {train.name(i) for i in range(len(train))} & {val.name(i) for i in range(len(val))}
    if shared:
        raise ConfigError(
            f"data.train_split and data.val_split share {len(shared)} examples, such as {min(shared)}: "
            f"write {whole}[:90%] and {whole}[90%:]"
        )


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
    view = replace(view, channels=config.data.channels, **given)
    if view.resize is not None and view.resize < view.size:
        raise ConfigError(f"data.resize must be at least the image size {view.size}, not {view.resize}")
    return view


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
    settings, evaluation = config.data, build_preprocessing(config, model)
    policy = None
    if settings.policy != "none":
        # As in torchvision's references, one filter serves the crop and the policy.
        options = {"interpolation": evaluation.interpolation, **settings.policy_options}
        policy = call_with_options("data.policy_options", data.POLICIES[settings.policy], options)
    return data.TrainTransform(
        **vars(evaluation),
        kind=settings.augment,
        flip=settings.flip,
        flip_vertically=settings.flip_vertically,
        jitter=call_with_options("data.jitter", data.ColorJitter, settings.jitter) if settings.jitter else None,
        greyscale=settings.greyscale,
        augmentation=policy,
        erase=settings.erase,
        padding=settings.padding,
    )


_DURATIONS = ("step_size", "milestones", "T_0")


def build_learning_rate(config: Config, schedule: Schedule) -> optax.Schedule:
    """The learning rate of a step."""
    settings = config.optimizer
    by_epoch = settings.schedule_by == "epoch"
    counts_per_epoch = 1 if by_epoch else schedule.steps_per_epoch

    def in_counts(name: str, epochs: float) -> int:
        count = epochs * counts_per_epoch
        if not 0 <= count < float("inf") or (by_epoch and count != round(count)):
            wanted = "a whole number of epochs" if by_epoch else "0 epochs or more"
            raise ConfigError(f"optimizer.{name} must be {wanted}, not {epochs}")
        return round(count)

    options = dict(settings.schedule_options)
    for name in _DURATIONS:
        value = options.get(name)
        if isinstance(value, (int, float)):  # `call_with_options` refuses the rest
            options[name] = max(in_counts(f"schedule_options: {name}", value), 1)
        elif isinstance(value, tuple):
            options[name] = tuple(in_counts(f"schedule_options: {name}", each) for each in value)
    total = math.ceil(schedule.total / schedule.steps_per_epoch) if by_epoch else schedule.total
    warmup = in_counts("warmup_epochs", settings.warmup_epochs)
    if warmup >= total:
        limit = f"train.epochs ({config.train.epochs})" if config.train.steps is None else "train.steps"
        raise ConfigError(
            f"optimizer.warmup_epochs must be less than {limit}, "
            f"not {settings.warmup_epochs}: add --optimizer.warmup_epochs 0"
        )
    make = schedules.SCHEDULES[settings.schedule]
    rate = call_with_options("optimizer.schedule_options", make, options, settings.learning_rate, total - warmup)
    factor = settings.warmup_factor
    if settings.warmup == "linear":
        rate = schedules.linear_warmup(rate, warmup, start_factor=factor)
    else:
        rate = schedules.constant_warmup(rate, warmup, factor=1 / 3 if factor is None else factor)
    return schedules.by_epoch(rate, schedule.steps_per_epoch) if by_epoch else rate


def build_loss(config: Config, num_classes: int) -> Loss:
    """Logits and labels to one value an example."""
    given = config.train.class_weights
    if given is not None and len(given) != num_classes:
        raise ConfigError(f"train.class_weights must be one a class ({num_classes}), not {len(given)}")
    weights = None if given is None else np.asarray(given, np.float32)
    if config.train.loss == "sigmoid":
        return partial(sigmoid_binary_cross_entropy, class_weights=weights)
    return partial(softmax_cross_entropy, label_smoothing=config.train.label_smoothing, class_weights=weights)


def evaluation_loss(config: Config) -> Loss:
    """The training's loss without what only training wants of it: smoothing and weights."""
    return sigmoid_binary_cross_entropy if config.train.loss == "sigmoid" else softmax_cross_entropy


def build_teacher(config: Config, class_names: Sequence[str], image_size: int) -> tuple[Classifier, Any] | None:
    """The model to learn from, and its variables; that of a run is built as it was trained.

    Args:
        image_size: height and width in pixels of the images that both see.

    Raises:
        ConfigError: when the weights are not there, not the model's, or of a run of other classes.
    """
    settings = config.distill
    if settings.model is None or settings.weights is None:
        return None
    folder = RunFolder(settings.weights)
    try:
        if folder.config.is_file():
            teacher = _model_of_run(folder, settings.model, class_names)
        else:
            teacher = create_model(settings.model, num_classes=len(class_names), image_size=image_size)
        return teacher, load_weights(teacher, settings.weights, channels=config.data.channels)
    except (UserError, ValueError, OSError) as error:
        raise ConfigError(f"distill: {error}") from error


def _model_of_run(folder: RunFolder, name: str, class_names: Sequence[str]) -> Classifier:
    config, known = from_dict(folder.read_config()), folder.read_class_names()
    if config.model.name != name:
        raise ConfigError(f"{folder.path} is a run of {config.model.name}, not of {name}")
    if known != list(class_names):
        theirs, ours = (", ".join(names[:3]) for names in (known, list(class_names)))
        raise ConfigError(
            f"the teacher in {folder.path} knows other classes ({theirs}, ...) than the data ({ours}, ...)"
        )
    return build_model(config, len(known))


def build_mixing(config: Config, num_classes: int) -> Mixing | None:
    """What mixes the examples of a batch."""
    settings = config.train
    mixings = [
        mix(num_classes, alpha=alpha) for mix, alpha in ((mixup, settings.mixup), (cutmix, settings.cutmix)) if alpha
    ]
    return choice(*mixings) if len(mixings) == 2 else mixings[0] if mixings else None


def build_average(config: Config, schedule: Schedule) -> Average | None:
    """The moving average of the weights."""
    settings = config.train
    if settings.ema_decay is None:
        return None
    epochs = math.ceil(schedule.total / schedule.steps_per_epoch)
    decay = decay_per_update(
        settings.ema_decay, every=settings.ema_steps, batch_size=config.data.batch_size, epochs=epochs
    )
    return moving_average(
        decay,
        every=settings.ema_steps,
        steps_per_epoch=schedule.steps_per_epoch,
        copy_steps=warmup_steps(config.optimizer.warmup_epochs, schedule.steps_per_epoch),
    )


def build_batches(config: Config, experiment: Experiment) -> Any:
    """This process's part of the training's batches, endless: see `flaxcnn.data.train_batches`.

    They are bytes, for `build_put_batch`, but where random erasing writes zeros after normalisation.
    """
    transform = experiment.train_transform
    return data.train_batches(
        experiment.train_source,
        transform if transform.erase else transform.pixels,
        batch_size=config.data.batch_size,
        seed=config.train.seed,
        repeats=config.data.repeats,
        balanced=config.data.balanced,
        num_threads=None if config.data.processes else config.data.threads,
        num_processes=config.data.processes,
        shard=(jax.process_index(), jax.process_count()),
    )


def build_put_batch(experiment: Experiment, devices: DataParallel) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What puts a batch on the devices, as the steps take it: bytes are normalised there."""
    normalise = jax.jit(device_normalisation(experiment.preprocessing), out_shardings=devices.split)

    def put_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
        put = devices.put_batch(batch)
        return {**put, "image": normalise(put["image"])} if put["image"].dtype == np.uint8 else put

    return put_batch


def build_step(config: Config, experiment: Experiment, devices: DataParallel, trainable: str = "") -> Step:
    """The training step of the parameters that match a pattern, for `devices.jit_step`."""
    settings, loss = config.train, experiment.loss
    if experiment.teacher is not None:
        loss = distillation(loss, temperature=config.distill.temperature, weight=config.distill.weight)
    return make_train_step(
        experiment.model.clone(axis_name=devices.axis_name if settings.sync_batch_norm else None),
        experiment.optimizer,
        loss=loss,
        aux_weight=settings.aux_weight,
        mixing=build_mixing(config, len(experiment.train_source.class_names)),
        teacher=experiment.teacher[0] if experiment.teacher else None,
        average=build_average(config, experiment.schedule),
        microbatches=settings.accumulate,
        remat=settings.remat,
        axis_name=devices.axis_name,
        trainable=trainable,
    )


def build_optimizer(
    config: Config, model: Classifier, learning_rate: optax.Schedule, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, dict[int, str]]:
    """The optimiser, behind the clipping of its gradients, and step -> the pattern of what trains from there."""
    settings = config.optimizer
    make = partial(optim.OPTIMIZERS[settings.name], decay_mask=optim.DECAY_MASKS[settings.decay])
    make = partial(call_with_options, "optimizer.options", make, settings.options)
    if settings.trainable or settings.factors:
        optimizer, phases = _build_groups(config, model, make, learning_rate, steps_per_epoch)
    else:
        optimizer, phases = make(learning_rate), {0: ""}
    clips = [
        clip(limit)
        for clip, limit in ((optim.clip_by_norm, settings.clip_norm), (optim.clip_by_value, settings.clip_value))
        if limit is not None
    ]
    return optax.chain(*clips, optimizer) if clips else optimizer, phases


def _build_groups(
    config: Config,
    model: Classifier,
    make: Callable[[optim.LearningRate], optax.GradientTransformation],
    learning_rate: optax.Schedule,
    steps_per_epoch: int,
) -> tuple[optax.GradientTransformation, dict[int, str]]:
    settings, params = config.optimizer, abstract_variables(model, config.data.channels)["params"]
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
    average, seed = config.train.ema_decay is not None, config.train.seed

    def create(key: jax.Array) -> TrainState:
        variables = model.init(key, images, train=False)
        return create_state(model, experiment.optimizer, variables, seed=seed, average=average)

    # One program: compiled apart, each initialiser and each array of zeros costs time and memory. It runs once, so it
    # is optimised little; not at all, VGG's numbers would be drawn six times as slowly.
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    return jax.jit(create, compiler_options=options)(jax.random.key(seed))


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
    state = state.replace(params=variables["params"], batch_stats=variables["batch_stats"])
    # A copy, as in `create_state`: the step gives up the memory of both.
    return state.replace(average=jax.tree.map(jnp.array, state.variables)) if state.average else state, lines


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
    parts = len(devices) * config.train.accumulate
    if config.data.batch_size % parts:
        of = "the 1 device" if len(devices) == 1 else f"the {len(devices)} devices"
        of += f" times train.accumulate ({config.train.accumulate})" if config.train.accumulate > 1 else ""
        nearest = max(config.data.batch_size // parts, 1) * parts
        raise ConfigError(
            f"data.batch_size must be a multiple of {of}, not {config.data.batch_size}: add --data.batch_size {nearest}"
        )
    return {"jit": DataParallel, "fsdp": FullySharded, "pmap": PerDevice}[config.train.parallel](devices)
