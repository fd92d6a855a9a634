"""The network that a command is told to use: a run's, or a model's by name."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flaxcnn.build import build_preprocessing
from flaxcnn.cli.command_line import Parser
from flaxcnn.cli.trained import TrainedRun, add_checkpoint_argument
from flaxcnn.config import ConfigError
from flaxcnn.data import Preprocessing
from flaxcnn.inference.predict import sigmoid, softmax
from flaxcnn.models import Classifier, create_model
from flaxcnn.train.parallel import DataParallel
from flaxcnn.weights import (
    CHECKPOINTS,
    checkpoint,
    fitted,
    from_torch,
    imagenet_classes,
    load_pretrained,
    preprocessing,
    read_weights,
)


def add_network_arguments(parser: Parser) -> None:
    """The flags that choose a network, and the device."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", metavar="DIR", help="a run's folder, such as runs/lenet")
    source.add_argument("--model", metavar="NAME", help="with its published weights, or those of --weights")
    parser.add_argument("--weights", metavar="FILE", help="of --model: .pth, .safetensors, or an Orbax folder")
    add_checkpoint_argument(parser)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu", "tpu"], help="what to compute on")


def check_network_arguments(known: Namespace) -> None:
    """Refuse flags that do not go together.

    Raises:
        ConfigError: names them.
    """
    if known.weights is not None and known.model is None:
        raise ConfigError("--weights needs --model NAME")
    if known.average and known.workdir is None:
        raise ConfigError("--average needs --workdir DIR")
    if known.checkpoint != "best" and known.workdir is None:
        raise ConfigError("--checkpoint needs --workdir DIR")


def read_network(known: Namespace) -> Network:
    """The network that the flags choose."""
    if known.workdir is not None:
        return _of_run(known.workdir, known.checkpoint, average=known.average)
    return _of_model(known.model, known.weights)


@dataclass(frozen=True)
class Network:
    """A network, and all that is needed to show it pictures."""

    model: Classifier
    variables: Mapping[str, Any]
    preprocessing: Preprocessing
    class_names: Sequence[str]
    probabilities: Callable[[np.ndarray], np.ndarray] = softmax

    def compile(self, devices: DataParallel) -> Callable[[np.ndarray], np.ndarray]:
        """Images to logits, each device taking its share of a batch."""
        variables = devices.put_state(self.variables)
        apply = devices.jit(lambda variables, batch: self.model.apply(variables, batch["image"], train=False))
        return lambda images: np.asarray(apply(variables, devices.put_batch({"image": images})))


def _of_run(workdir: str, checkpoint: str, *, average: bool) -> Network:
    run = TrainedRun.read(workdir)
    _, variables = run.load(checkpoint, average=average)
    probabilities = sigmoid if run.config.train.loss == "sigmoid" else softmax
    return Network(run.model, variables, build_preprocessing(run.config, run.model), run.class_names, probabilities)


def _of_model(name: str, weights: str | None) -> Network:
    if weights is None:
        return Network(*load_pretrained(name), imagenet_classes())
    # They are taken to see a picture as the published ones do, where there are some.
    is_published = any(row.model == name for row in CHECKPOINTS)
    try:
        model = create_model(name, **(checkpoint(name).options if is_published else {}))
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from error
    state_dict = read_weights(weights).state_dict
    model, channels = fitted(model, state_dict)
    if channels not in (1, 3):
        raise ConfigError(f"{weights} is for images of {channels} channels; files are read as 3, or 1 (grey)")
    view = replace(preprocessing(name) if is_published else Preprocessing(model.image_size), channels=channels)
    names = imagenet_classes() if model.num_classes == 1000 else [f"class {i}" for i in range(model.num_classes)]
    return Network(model, from_torch(model, state_dict, channels=channels), view, names)
