"""Write docs/models.md: what each model costs, what it is known to reach, and how far its numbers are from PyTorch's.

python benchmarks/models_table.py

Needs the `test` extra. Each model is compared in two processes, one in float64 and one in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
HEAD = """# The models

Written by `python benchmarks/models_table.py`. *MACs* are multiply-adds of one image of the published size, in
millions. *Top-1* is what the published weights reach on ImageNet, in percent, as their publishers state it. The errors
are those of the logits against the PyTorch reference with the same randomised weights and BatchNorm statistics,
relative to the largest logit: in float64 on an odd, non-square image, in float32 at the published size.

| model | size | parameters | MACs (M) | top-1 | float64 error | float32 error |
|---|--:|--:|--:|--:|--:|--:|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    from flaxcnn import create_model, list_models
    from flaxcnn.analysis import cost
    from flaxcnn.weights.zoo import CHECKPOINTS

    top1 = {checkpoint.model: checkpoint.top1 for checkpoint in CHECKPOINTS if checkpoint.version == "v1"}
    rows = []
    for name in list_models():
        model = create_model(name)
        parameters, macs = cost(model)
        errors = [in_own_process(name, dtype) for dtype in ("float64", "float32")]
        published = f"{top1[name]:.2f}" if name in top1 else ""
        rows.append(
            f"| {name} | {model.image_size} | {parameters:,} | {macs / 1e6:,.1f} | {published} | "
            f"{errors[0]:.1e} | {errors[1]:.1e} |"
        )
        print(rows[-1], flush=True)
    PAGE.write_text(HEAD + "\n".join(rows) + "\n")


def in_own_process(name: str, dtype: str) -> float:
    """`measure`, in a process whose float type is `dtype`."""
    environment = {
        **os.environ,
        "JAX_ENABLE_X64": str(int(dtype == "float64")),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, __file__, "--measure", name, dtype]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def measure(name: str, dtype: str) -> float:
    """The largest error of the logits, relative to the largest logit."""
    import jax

    from flaxcnn import create_model, from_torch
    from tests.references import make_images, randomise, relative_error, to_nchw, torch, torch_reference
    from tests.variants import image_sizes, small_size

    model = create_model(name)
    own = (model.image_size, model.image_size)
    torch.manual_seed(0)
    reference = torch_reference(name).double()
    images = make_images(image_sizes(name)[1] if dtype == "float64" else own, batch=1)
    calibration = make_images(small_size(name), batch=4) if dtype == "float64" else make_images(own, batch=2, seed=1)
    randomise(reference, to_nchw(calibration)).to(getattr(torch, dtype))
    images = images.astype(dtype)
    variables = from_torch(model, reference.state_dict())
    logits = jax.jit(lambda variables, images: model.apply(variables, images, train=False))(variables, images)
    with torch.no_grad():
        expected = reference(to_nchw(images)).numpy()
    return relative_error(logits, expected)


if __name__ == "__main__":
    main()
