"""Turn one kind of weights file into another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from flaxcnn.cli.command_line import Parser
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.trained import TrainedRun
from flaxcnn.config import ConfigError
from flaxcnn.models import Classifier, create_model
from flaxcnn.weights import fitted, from_torch, read_weights, save_weights

DESCRIPTION = """Turn one kind of weights file into another: PyTorch's (.pth or .pt; read in the zip and the legacy
format, written in the zip format), safetensors, and folders in Orbax's format, runs among them. PyTorch is not needed,
nothing in a file is executed, and a file that does not fit the model is refused."""


def main(argv: Sequence[str]) -> int:
    """`convert --model NAME IN OUT [--num-classes N] [--entry NAME]`."""
    parser = Parser("convert", DESCRIPTION)
    parser.add_argument("--model", metavar="NAME", help="whose weights they are; not needed where IN is a run's folder")
    parser.add_argument("--num-classes", type=int, metavar="N", help="outputs of --model (default: as IN has)")
    parser.add_argument("--entry", metavar="NAME", help="of a PyTorch checkpoint with several, such as model_ema")
    parser.add_argument("source", metavar="IN", help="a file, told by its content, or a folder")
    parser.add_argument("target", metavar="OUT", help="ends in .pth, .pt or .safetensors, or in nothing for a folder")
    known = parser.parse_args(argv)
    if Path(known.target).is_file():
        raise ConfigError(f"{known.target} exists; remove it, or name another file")
    set_up_jax("cpu")
    state_dict, notes = read_weights(known.source, entry=known.entry)
    model, channels = _model(known.model, known.num_classes, known.source, state_dict)
    with jax.enable_x64(True):  # float64 stays what it is
        variables = from_torch(model, state_dict, channels=channels)
        save_weights(model, variables, known.target, channels=channels)
    arrays = jax.tree.leaves(variables)
    types = sorted({str(array.dtype) for array in arrays})
    heads = "" if getattr(model, "aux_heads", True) else ", no auxiliary heads"
    print(f"read {known.source}: {', '.join(notes)}, {model.num_classes} classes, channels {channels}{heads}")
    print(f"wrote {known.target}: {len(arrays)} arrays, {sum(a.size for a in arrays):,} numbers, {', '.join(types)}")
    return 0


def _model(
    name: str | None, num_classes: int | None, source: str, state_dict: Mapping[str, Any]
) -> tuple[Classifier, int]:
    """The model, and the channels of its images."""
    if name is None:
        if not (Path(source) / "config.json").is_file():
            raise ConfigError("--model NAME is needed where IN is not a run's folder")
        run = TrainedRun.read(source)
        return run.model, run.config.data.channels
    try:
        model = create_model(name, num_classes=1000 if num_classes is None else num_classes)
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from error
    fitting, channels = fitted(model, state_dict)
    return fitting if num_classes is None else fitting.clone(num_classes=num_classes), channels
