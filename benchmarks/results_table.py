"""Train one network of every family on the embedded digits by one recipe, and write docs/results.md and its Chinese.

    python benchmarks/results_table.py

The runs are in runs/results/, and the same command goes on with what is not finished there. The time of an epoch is
measured too, so the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from flaxcnn import create_model
from flaxcnn.analysis import cost
from flaxcnn.cli.command_line import load_config
from flaxcnn.data import digits

# Model, and the chapter of the guide that it is from.
MODELS = {
    "lenet": "lenet",
    "alexnet_half": "alexnet",
    "vgg11_bn": "vgg",
    "googlenet": "googlenet",
    "resnet18": "resnet",
    "resnext50_32x4d": "resnext",
    "mobilenet_v1": "mobilenet",
    "mobilenet_v2": "mobilenet",
    "mobilenet_v3_small": "mobilenet",
    "shufflenet_v1_g3": "shufflenet",
    "shufflenet_v2_x1_0": "shufflenet",
    "efficientnet_b0": "efficientnet",
    "efficientnet_lite0": "efficientnet",
}
# By the published momentum, V3's running statistics would still hold much of their initial values.
OPTIONS = {"mobilenet_v3_small": {"momentum": 0.1}}
ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "digits.py"
RUNS = ROOT / "runs" / "results"


def main() -> None:
    """Train what is not trained yet, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="NAME")
    for name in parser.parse_args().models:
        if result(name) is None:
            train(name)
        print(f"{name}: {result(name)}", flush=True)
    results = {name: result(name) for name in MODELS}
    missing = [name for name, measured in results.items() if measured is None]
    if missing:
        print(f"not trained yet, so no page is written: {', '.join(missing)}")
    else:
        write_pages(results)


def train(name: str) -> None:
    """Train by the command, with one evaluation and one checkpoint, which do not change the training."""
    command = [sys.executable, "scripts/train.py", "--config", str(CONFIG), "--model.name", name]
    if name in OPTIONS:
        command += ["--model.options", *(str(word) for option in OPTIONS[name].items() for word in option)]
    command += ["--device", "cpu", "--train.eval_every", str(load_config(CONFIG).train.epochs)]
    subprocess.run([*command, "--workdir", str(RUNS / name)], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def result(name: str) -> dict[str, float] | None:
    """Accuracy after the last epoch and seconds an epoch, by the median of the rates that the run recorded."""
    metrics = RUNS / name / "metrics.jsonl"
    records = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    if not records or records[-1]["split"] != "eval":
        return None
    rate = statistics.median(record["images_per_second"] for record in records if record["split"] == "train")
    return {"top1": records[-1]["top1"], "seconds": len(digits("train")) / rate}


def write_pages(results: dict[str, Any]) -> None:
    """Write the table in both languages."""
    recipe, held_out = load_config(CONFIG), len(digits("val"))
    facts = {
        "size": recipe.data.image_size,
        "batch": recipe.data.batch_size,
        "epochs": recipe.train.epochs,
        "train": f"{len(digits('train')):,}",
        "held_out": held_out,
        "one": f"{1 / held_out:.2%}",
        "cores": len(os.sched_getaffinity(0)),
    }
    for page, head in PAGES.items():
        rows = [row(name, results[name], ".zh.md" if page.endswith(".zh.md") else ".md") for name in MODELS]
        (ROOT / "docs" / page).write_text(head.format(**facts, rows="\n".join(rows)))


def row(name: str, measured: dict[str, float], suffix: str) -> str:
    """A line of the table, with a link to the model's chapter in the page's language."""
    size = load_config(CONFIG).data.image_size
    parameters, macs = cost(create_model(name, num_classes=10), image_size=size)
    return (
        f"| [{name}](guide/{MODELS[name]}{suffix}) | {measured['top1']:.1%} | {measured['seconds']:.1f} "
        f"| {parameters:,} | {macs / 1e6:,.1f} |"
    )


PAGES = {
    "results.md": """# Results

Written by `python benchmarks/results_table.py`. One network of every family and version, trained from scratch on the
same images by the same recipe, [`configs/digits.py`](../configs/digits.py): {train} of scikit-learn's handwritten
digits, 8x8 pixels scaled to {size}x{size}, {epochs} epochs of AdamW in batches of {batch}, every network with the
dropout and initialisation that it was published with. Only MobileNetV3 is given another momentum of BatchNorm (0.1):
with its own, so short a training evaluates at chance ([why](guide/mobilenet.md#train-one)).

- *Top-1* is of the {held_out} held-out digits after the last epoch; one digit is {one}.
- *Seconds* are of an epoch's updates, loading included, compilation and evaluation not; CPU cores: {cores}.
- *Parameters* are those with 10 classes, auxiliary heads included; *multiply-adds* those of one image of {size}x{size}.

| model | top-1 | seconds an epoch | parameters | multiply-adds (M) |
|---|--:|--:|--:|--:|
{rows}

Read it with care. So few epochs of so few images ask which network learns quickly, not which is good: on ImageNet the
order is another ([the models](models.md)). And multiply-adds are not time: depthwise and grouped convolutions have few
of them, but read and write as much memory, and each update of all parameters costs the same however small the images
are.

Any other network is trained likewise:

    python scripts/train.py --config configs/digits.py --model.name resnet34 --workdir runs/resnet34
""",
    "results.zh.md": """# 结果

本页由 `python benchmarks/results_table.py` 生成。每个系列、每一代各取一个网络，\
在同样的图像上用同一套设置 [`configs/digits.py`](../configs/digits.py) 从头训练：\
scikit-learn 手写数字中的 {train} 张，8x8 像素放大到 {size}x{size}，\
AdamW，批大小 {batch}，共 {epochs} 轮（epoch）；dropout 与初始化都保持各网络发表时的样子。\
只有 MobileNetV3 改用了另一个批归一化动量（0.1）：用它原来的动量，\
训练这样短，评估结果与随便猜无异（[原因](guide/mobilenet.zh.md#训练一个)）。

- *top-1* 是最后一轮之后在 {held_out} 张留出图像上的准确率；一张图像相当于 {one}。
- *秒数*是一轮参数更新所用的时间，含数据加载，不含编译和评估；CPU 核数：{cores}。
- *参数量*按 10 个类别计，含辅助分类头；*乘加数*按一张 {size}x{size} 像素的图像计。

| 模型 | top-1 | 每轮秒数 | 参数量 | 乘加数 (M) |
|---|--:|--:|--:|--:|
{rows}

请谨慎解读。数据和轮数这样少，比的是谁学得快，而不是谁更好：\
在 ImageNet 上名次并不相同（[模型一览](models.zh.md)）。另外，乘加数不等于时间：\
深度可分离卷积和组卷积的乘加数很少，读写的内存却并不少；\
而每次更新全部参数的开销，图像再小也不会减少。

别的网络也可以照此训练：

    python scripts/train.py --config configs/digits.py --model.name resnet34 --workdir runs/resnet34
""",
}


if __name__ == "__main__":
    main()
