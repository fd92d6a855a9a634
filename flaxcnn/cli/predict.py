"""Say what is in image files."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import jax
import numpy as np

from flaxcnn.build import build_preprocessing, find_devices
from flaxcnn.cli.command_line import Parser
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.trained import TrainedRun, add_run_arguments
from flaxcnn.config import ConfigError
from flaxcnn.inference.predict import Prediction, find_images, predict

DESCRIPTION = "Say what is in image files, by a trained run."


def main(argv: Sequence[str]) -> int:
    """`predict --workdir DIR [--checkpoint best|latest|STEP] [--top K] [--json] IMAGE...`."""
    parser = Parser("predict", DESCRIPTION)
    add_run_arguments(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders, or patterns such as 'photos/*.jpg'")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes to show (default: 5)")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu", "tpu"], help="what to compute on")
    known = parser.parse_args(argv)
    if known.top < 1:
        raise ConfigError(f"--top must be 1 or more, not {known.top}")
    files = find_images(known.images)
    run = TrainedRun.read(known.workdir)
    set_up_jax(known.device)
    device = find_devices(known.device)[0]
    _, variables = run.load(known.checkpoint, average=known.average)
    variables = jax.device_put(variables, device)
    apply = jax.jit(lambda variables, images: run.model.apply(variables, images, train=False))

    def logits(images: np.ndarray) -> np.ndarray:
        return np.asarray(apply(variables, images))

    predictions = predict(
        logits,
        files,
        preprocessing=build_preprocessing(run.config, run.model),
        class_names=run.class_names,
        top=known.top,
        batch_size=min(32, len(files)),
    )
    unreadable = 0
    for prediction in predictions:
        if prediction.error is not None:
            unreadable += 1
            print(f"predict: {prediction.error}", file=sys.stderr)
        else:
            print(_as_json(prediction) if known.json else _as_table(prediction))
    return 1 if unreadable else 0


def _as_json(prediction: Prediction) -> str:
    classes = [{"label": label, "probability": probability} for label, probability in prediction.classes]
    return json.dumps({"file": prediction.file, "predictions": classes})


def _as_table(prediction: Prediction) -> str:
    width = max(len(label) for label, _ in prediction.classes)
    rows = [f"  {label:<{width}}  {p:7.2%}  {'█' * round(p * 30)}".rstrip() for label, p in prediction.classes]
    return "\n".join([prediction.file, *rows])
