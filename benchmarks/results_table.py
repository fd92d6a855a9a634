"""Train one network of every family on the embedded digits by one recipe, and write docs/results.md and its Chinese.

    python benchmarks/results_table.py

Every measurement is kept in docs/results.json, and the same command goes on from there: to measure a network anew, take
its line out. `--phases train` only trains; `--phases time` only measures the time of an epoch, which wants the machine
for itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax

from flaxcnn import create_model
from flaxcnn.analysis import cost
from flaxcnn.build import build, build_batches, build_devices, build_put_batch, build_step, initial_state
from flaxcnn.cli.command_line import load_config
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.huge_pages import start_again_with_huge_pages
from flaxcnn.config import Config
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
DOCS = ROOT / "docs"
CONFIG = ROOT / "configs" / "digits.py"
WARM_UP, TIMED = 3, 20
"""Updates before the measurement, and in it."""

Results = dict[str, dict[str, float]]
"""`top1` and `loss`, `seconds` and `cores` of each network, as far as they are measured."""


def main() -> None:
    """Measure what is not known yet, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="NAME", help="those to measure"
    )
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of results.json and the pages")
    parser.add_argument("--epochs", type=int, help="fewer than the recipe's, to try this program")
    options = parser.parse_args()
    if options.epochs and options.out == DOCS:
        parser.error("--epochs makes other results than the pages': name another folder by --out")
    kept = options.out / "results.json"
    start_again_with_huge_pages()
    set_up_jax("cpu")
    for phase in options.phases:
        measure, what = PHASES[phase]
        for name in options.models:
            if what not in read(kept).get(name, {}):
                result = measure(config(name, options.epochs))
                known = read(kept)  # anew: another phase may have been writing meanwhile
                write(kept, {**known, name: {**known.get(name, {}), **result}})
                print(f"{name}: {result}", flush=True)
    measured = complete(read(kept))
    if measured:
        write_pages(read(kept), options.out)
    if missing := [name for name in MODELS if name not in measured]:
        print(f"not measured yet, so not in the table: {', '.join(missing)}")


def read(path: Path) -> Results:
    """The measurements so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, results: Results) -> None:
    """Keep measurements, a network a line."""
    lines = [f"  {json.dumps(name)}: {json.dumps(results[name], sort_keys=True)}" for name in sorted(results)]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def complete(results: Results) -> list[str]:
    """The networks that every phase has measured, in the order of the table."""
    return [name for name in MODELS if all(what in results.get(name, {}) for _, what in PHASES.values())]


def train(settings: Config) -> dict[str, float]:
    """Train by the command; its last evaluation."""
    model, epochs = settings.model, str(settings.train.epochs)
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "scripts/train.py", "--config", str(CONFIG), "--model.name", model.name]
        if model.options:
            command += ["--model.options", *(str(word) for option in model.options.items() for word in option)]
        # One evaluation and one checkpoint, which do not change the training, and no report.
        command += ["--train.epochs", epochs, "--train.eval_every", epochs, "--train.report", "False"]
        command += ["--device", "cpu", "--workdir", workdir]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        *_, last = map(json.loads, (Path(workdir) / "metrics.jsonl").read_text().splitlines())
    return {"top1": last["top1"], "loss": last["loss"]}


def time_an_epoch(settings: Config) -> dict[str, float]:
    """The seconds of an epoch: of its updates, batches loaded meanwhile, without compilation and evaluation."""
    experiment, devices = build(settings), build_devices(settings)
    state = devices.put_state(initial_state(settings, experiment))
    batches, put_batch = build_batches(settings, experiment), build_put_batch(experiment, devices)
    batch = put_batch(next(batches))
    step = devices.jit_step(build_step(settings, experiment, devices), state).lower(state, batch).compile()
    times = []
    for _ in range(WARM_UP + TIMED):
        began = time.perf_counter()
        state, metrics = step(state, batch)
        batch = put_batch(next(batches))
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - began)
    batches.close()
    seconds = statistics.median(times[WARM_UP:]) * experiment.schedule.steps_per_epoch
    return {"seconds": seconds, "cores": len(os.sched_getaffinity(0))}


PHASES = {"train": (train, "top1"), "time": (time_an_epoch, "seconds")}
"""What measures a model, and what it has measured where that is known."""


def config(name: str, epochs: int | None = None) -> Config:
    """The recipe, for a model; its own epochs if None."""
    recipe = load_config(CONFIG)
    model = replace(recipe.model, name=name, options=OPTIONS.get(name, {}))
    return replace(recipe, model=model, train=replace(recipe.train, epochs=epochs or recipe.train.epochs), device="cpu")


def write_pages(results: Results, folder: Path) -> None:
    """Write the table in both languages."""
    names = complete(results)
    recipe, train_images, held_out = load_config(CONFIG), len(digits("train")), len(digits("val"))
    facts = {
        "size": recipe.data.image_size,
        "batch": recipe.data.batch_size,
        "epochs": recipe.train.epochs,
        "train": f"{train_images:,}",
        "held_out": held_out,
        "one": f"{1 / held_out:.2%}",
        "cores": " / ".join(sorted({str(results[name]["cores"]) for name in names})),
    }
    for page, head in PAGES.items():
        suffix = ".zh.md" if page.endswith(".zh.md") else ".md"
        rows = [row(name, results[name], suffix) for name in names]
        (folder / page).write_text(head.format(**facts, rows="\n".join(rows)))


def row(name: str, result: dict[str, float], suffix: str) -> str:
    """A line of the table; links are to the chapters' English pages, which the site translates with the page."""
    settings = config(name)
    size = settings.data.image_size
    parameters, macs = cost(create_model(name, num_classes=10, image_size=size), image_size=size)
    return (
        f"| [{name}](guide/{MODELS[name]}{suffix}) | {result['top1']:.1%} | {result['seconds']:.1f} "
        f"| {parameters:,} | {macs / 1e6:,.1f} |"
    )


PAGES = {
    "results.md": """# Results

Written by `python benchmarks/results_table.py`. Networks of the guide's families, trained from scratch on the
same images by the same recipe, [`configs/digits.py`](../configs/digits.py): {train} of scikit-learn's handwritten
digits, 8x8 pixels scaled to {size}x{size}, {epochs} epochs of AdamW in batches of {batch}, every network with the
dropout and initialisation that it was published with. Only MobileNetV3 is given another momentum of BatchNorm (0.1):
with its own, so short a training evaluates at chance ([why](guide/mobilenet.md#train-one)).

The recipe was chosen by the same held-out digits, with one seed, so the accuracies are a little too good. So short a
training also follows the last digits of its sums, which differ from processor to processor: on another one the
accuracies differ.

- *Top-1* is of the {held_out} held-out digits after the last epoch; one digit is {one}.
- *Seconds* are of an epoch's updates on {cores} CPU cores, loading included; without compilation and evaluation.
- *Parameters* are those with 10 classes, auxiliary heads included; *multiply-adds* those of one image of {size}x{size}.
  LeNet's and `alexnet_half`'s parameters depend on the image's size, and are not their chapters'.

| model | top-1 | seconds an epoch | parameters | multiply-adds (M) |
|---|--:|--:|--:|--:|
{rows}

Read it with care. So few epochs of so few images ask which network learns quickly, not which is good: on ImageNet the
order is another ([the models](models.md)). And multiply-adds are not time: depthwise and grouped convolutions have few
of them, but read and write as much memory, and each update of all parameters costs the same however small the images
are.

Any other network is trained likewise:

    python scripts/train.py --config configs/digits.py --model.name resnet34 \\
        --workdir runs/resnet34
""",
    "results.zh.md": """# 结果

本页由 `python benchmarks/results_table.py` 生成。本教程各系列的网络，\
在同样的图像上用同一套设置 [`configs/digits.py`](../configs/digits.py) 从头训练：\
scikit-learn 手写数字中的 {train} 张，8x8 像素放大到 {size}x{size}，\
AdamW，批大小 {batch}，共 {epochs} 轮（epoch）；dropout 与初始化都保持各网络发表时的样子。\
只有 MobileNetV3 改用了另一个批归一化动量（0.1）：用它原来的动量，\
训练这样短，评估结果与随便猜无异（[原因](guide/mobilenet.zh.md#训练一个)）。

训练设置是用同一批留出的数字、单个随机种子选定的，所以准确率略微偏高。\
这样短的训练还会受求和末位数字的影响，而末位数字因处理器而异：\
换一种处理器，准确率会有所不同。

- *top-1* 是最后一轮之后在 {held_out} 张留出图像上的准确率；一张图像相当于 {one}。
- *秒数*是 {cores} 个 CPU 核上一轮参数更新所用的时间，含数据加载；不含编译和评估。
- *参数量*按 10 个类别计，含辅助分类器；*乘加数*按一张 {size}x{size} 像素的图像计。\
LeNet 与 `alexnet_half` 的参数量取决于图像的大小，因此与各自章节中的不同。

| 模型 | top-1 | 每轮秒数 | 参数量 | 乘加数 (M) |
|---|--:|--:|--:|--:|
{rows}

请谨慎解读。数据和轮数这样少，比的是谁学得快，而不是谁更好：\
在 ImageNet 上名次并不相同（[模型一览](models.zh.md)）。另外，乘加数不等于时间：\
深度卷积和组卷积的乘加数很少，读写的内存却并不少；\
而每次更新全部参数的开销，图像再小也不会减少。

别的网络也可以照此训练：

    python scripts/train.py --config configs/digits.py --model.name resnet34 \\
        --workdir runs/resnet34
""",
}


if __name__ == "__main__":
    main()
