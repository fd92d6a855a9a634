"""summarize and arithmetic: what they print, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_a_table(command: Command) -> None:
    result = command("summarize", "--model", "lenet", "--num-classes", 10)
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0][:4] == ["layer", "kind", "output", "kernel"]
    assert lines[3] == ["conv2", "Conv", "10x10x32", "5", "1", "12,832", "1,280,000", "12.8", "kB", "14", "2", "7"]
    assert lines[5] == ["fc1", "Linear", "120", "96,120", "96,000", "0.5", "kB", "image"]
    assert "parameters   121,182 (0.5 MB in float32)" in result.out


def test_json(command: Command) -> None:
    result = command("summarize", "--model", "googlenet", "--image-size", 64, "--json")
    summary = json.loads(result.out)
    assert (summary["model"], summary["image_size"], summary["parameters"]) == ("googlenet", 64, 13_004_888)
    assert summary["macs"] == sum(layer["macs"] for layer in summary["layers"])
    first, *_, last = summary["layers"]
    assert first == {
        "name": "conv1.conv",
        "kind": "Conv",
        "output": [32, 32, 64],
        "kernel": [7, 7],
        "stride": [2, 2],
        "parameters": 9408,
        "macs": 9408 * 32 * 32,
        "activation_bytes": 4 * 64 * 32 * 32,
        "receptive_field": [7, 7],
        "jump": [2, 2],
        "centre": [0.5, 0.5],
    }
    assert last["name"] == "fc" and last["receptive_field"] is None


def test_a_run(command: Command, run_folder: Path) -> None:
    result = command("summarize", "--workdir", run_folder)
    assert "lenet, one image of 16x16x3" in result.out and "29,022" in result.out


def test_comparison(command: Command) -> None:
    head, first, second = command("summarize", "--compare", "lenet", "lenet", "--image-size", 32).out.splitlines()
    assert head.split()[0] == "model" and first.split()[:3] == second.split()[:3] == ["lenet", "32", "205,332"]


@pytest.mark.slow
def test_comparison_with_a_published_model(command: Command) -> None:
    words = ["--compare", "lenet", "shufflenet_v2_x0_5", "--image-size", 32]
    lenet, shufflenet = json.loads(command("summarize", *words, "--json").out)["models"]
    assert lenet["top1"] is None and shufflenet["top1"] == 60.552
    assert lenet["parameters"] == 205_332 and 0 < lenet["latency"] < 1


def test_mistakes(refused: Callable[..., str], run_folder: Path) -> None:
    assert "one of the arguments --model --workdir --compare is required" in refused("summarize")
    assert "unknown model 'resnet5'; did you mean resnet" in refused("summarize", "--model", "resnet5")
    assert "--image-size: images of 9x9 pixels" in refused("summarize", "--model", "vgg11", "--image-size", 9)
    assert "--image-size must be 1 or more" in refused("summarize", "--model", "vgg11", "--image-size", 0)
    assert "num_classes must be a whole number" in refused("summarize", "--model", "lenet", "--num-classes", -1)
    assert "a run has its data's classes" in refused("summarize", "--workdir", run_folder, "--num-classes", 3)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("output_size --size 224 --kernel 7 --stride 2 --padding 3", "112.5, rounded down: 112"),
        ("output_size --size 224 --kernel 2 --stride 2", "(224 - 2 + 2 * 0) / 2 + 1 = 112"),
        ("receptive_field --kernels 3 2 3 --strides 2 2 1", "F(1) = (6 - 1) * 2 + 3 = 13"),
        ("receptive_field --kernels 3 3 3", "F(1) = (5 - 1) * 1 + 3 = 7"),
        ("separable --inputs 32 --features 64 --size 112", "(3 * 3 + 64) * 32 * 112 * 112 = 29,302,784"),
        ("bottleneck --channels 256 --narrow 64", "= 69,632; MACs 69,632\nthat is 0.0590 of it, 16.9 times fewer"),
    ],
)
def test_sums(command: Command, words: str, answer: str) -> None:
    assert answer in command("arithmetic", *words.split()).out


def test_wrong_sums(refused: Callable[..., str]) -> None:
    def line(words: str) -> str:
        return refused("arithmetic", *words.split())

    assert "say what to do: output_size or receptive_field" in line("")
    assert "did you mean output_size" in line("output_sise")
    assert "Missing from arithmetic output_size: --kernel" in line("output_size --size 3")
    assert "a window of 5 does not fit an input of 3" in line("output_size --size 3 --kernel 5")
    assert "--padding must be 0 or more" in line("output_size --size 3 --kernel 1 --padding -1")
    assert "--strides must be one a kernel" in line("receptive_field --kernels 3 --strides 1 2")
    assert "--inputs must be 1 or more" in line("separable --inputs 0 --features 3")
