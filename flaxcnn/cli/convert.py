"""Turn one kind of weights file into another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax

from flaxcnn.cli.command_line import Parser
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.trained import TrainedRun
from flaxcnn.config import ConfigError
from flaxcnn.models import Classifier, create_model
from flaxcnn.weights import from_torch, read_weights, save_weights

DESCRIPTION = """Turn one kind of weights file into another: PyTorch's (.pth or .pt; read in the zip and the legacy
format, written in the zip format), safetensors, and folders in Orbax's format, runs among them. PyTorch is not needed,
nothing in a file is executed, and a file that does not fit the model is refused."""


def main(argv: Sequence[str]) -> int:
    """`convert --model NAME IN OUT [--num-classes N] [--entry NAME]`."""
    parser = Parser("convert", DESCRIPTION)
    parser.add_argument("--model", metavar="NAME", help="whose weights they are; not needed where IN is a run's folder")
    parser.add_argument("--num-classes", type=int, default=1000, metavar="N", help="outputs of --model (default: 1000)")
    parser.add_argument("--entry", metavar="NAME", help="of a PyTorch checkpoint with several, such as model_ema")
    parser.add_argument("source", metavar="IN", help="a file, told by its content, or a folder")
    parser.add_argument("target", metavar="OUT", help="ends in .pth, .pt or .safetensors, or in nothing for a folder")
    known = parser.parse_args(argv)
    if Path(known.target).is_file():
        raise ConfigError(f"{known.target} exists; remove it, or name another file")
    set_up_jax("cpu")
    model, channels = _model(known.model, known.num_classes, known.source)
    state_dict, notes = read_weights(known.source, entry=known.entry)
    with jax.enable_x64(True):  # float64 stays what it is
        variables = from_torch(model, state_dict, channels=channels)
        save_weights(model, variables, known.target, channels=channels)
    arrays = jax.tree.leaves(variables)
    types = sorted({str(array.dtype) for array in arrays})
    print(f"read {known.source}: {', '.join(notes)}")
    print(f"wrote {known.target}: {len(arrays)} arrays, {sum(a.size for a in arrays):,} numbers, {', '.join(types)}")
    return 0


def _model(name: str | None, num_classes: int, source: str) -> tuple[Classifier, int]:
    """The model, and the channels of its images."""
    if name is not None:
        try:
            return create_model(name, num_classes=num_classes), 3
        except ValueError as error:
            raise ConfigError(f"--model: {error}") from error
    if not (Path(source) / "config.json").is_file():
        raise ConfigError("--model NAME is needed where IN is not a run's folder")
    run = TrainedRun.read(source)
    return run.model, run.config.data.channels
