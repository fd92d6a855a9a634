"""Write docs/models.md in both languages: what each model costs, what it is known to reach, how far it is from PyTorch.

    python benchmarks/models_table.py

Needs the `test` extra.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Before JAX starts: errors are measured in float64, and each program runs only once.
os.environ["JAX_ENABLE_X64"] = "1"
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

ROOT = Path(__file__).resolve().parents[1]
HEADS = {
    "models.md": """# The models

Written by `python benchmarks/models_table.py`. *Size* is the published one, in pixels; *MACs* are the multiply-adds of
one image of that size, in millions. *Top-1* is what the published weights (the first, where there are several) reach on
ImageNet, in percent, as their publishers state it. The *error* is that of the logits against the PyTorch reference, in
float64, on an odd and non-square image, with the same randomised weights and BatchNorm statistics, relative to the
largest logit.

With `dtype=jnp.bfloat16`, logits are off by at most five times what rounding the images and weights to bfloat16 costs
(`pytest tests/models -k bfloat16`).

| model | size | parameters | MACs (M) | top-1 | error |
|---|--:|--:|--:|--:|--:|
""",
    "models.zh.md": """# 模型

由 `python benchmarks/models_table.py` 写出。*尺寸*是发布时的图像尺寸，以像素计；
*MACs* 是一张该尺寸的图像所需的乘加次数，以百万计。
*Top-1* 是已发布的权重（若有多个，取第一个）在 ImageNet 上的准确率，
以百分数计，引自其发布者。*误差*是 logits 与 PyTorch 参考模型之差：
在 float64 下，用一张边长为奇数的非正方形图像，
采用相同的随机权重与批归一化统计量，相对于最大的 logit。

使用 `dtype=jnp.bfloat16` 时，logits 的偏差至多是把图像与权重舍入到 bfloat16 所带来偏差的五倍
（`pytest tests/models -k bfloat16`）。

| 模型 | 尺寸 | 参数量 | MACs (M) | top-1 | 误差 |
|---|--:|--:|--:|--:|--:|
""",
}


def main() -> None:
    """Measure every registered model, or those named, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="those to measure, instead of all")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the pages")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))  # for tests.references
    import jax

    from flaxcnn import create_model, list_models
    from flaxcnn.analysis import cost
    from flaxcnn.weights import CHECKPOINTS

    top1 = {checkpoint.model: checkpoint.top1 for checkpoint in CHECKPOINTS if checkpoint.version == "v1"}
    rows = []
    for name in options.models or list_models():
        model = create_model(name)
        parameters, macs = cost(model)
        published = f"{top1[name]:.2f}" if name in top1 else ""
        rows.append(
            f"| {name} | {model.image_size} | {parameters:,} | {macs / 1e6:,.1f} | {published} | {error(name):.1e} |"
        )
        print(rows[-1], flush=True)
        jax.clear_caches()
    for page, head in HEADS.items():
        (options.out / page).write_text(head + "\n".join(rows) + "\n")


def error(name: str) -> float:
    """The largest error of the logits, relative to the largest logit."""
    import jax

    from flaxcnn import create_model, from_torch
    from tests.references import make_images, randomise, relative_error, to_nchw, torch, torch_reference
    from tests.variants import image_sizes, small_size

    model = create_model(name)
    torch.manual_seed(0)
    reference = randomise(torch_reference(name).double(), to_nchw(make_images(small_size(name), batch=4)))
    images = make_images(image_sizes(name)[1], batch=1)
    variables = from_torch(model, reference.state_dict())
    logits = jax.jit(lambda variables, images: model.apply(variables, images, train=False))(variables, images)
    with torch.no_grad():
        return relative_error(logits, reference(to_nchw(images)).numpy())


if __name__ == "__main__":
    main()
