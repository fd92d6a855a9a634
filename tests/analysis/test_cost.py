"""Parameters and multiply-adds: torchvision's table, the papers', and a count of PyTorch's own modules."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from flaxcnn import create_model
from flaxcnn.analysis import Summary, cost, summarize
from tests.references import torch, torch_reference, torchvision
from tests.variants import each_quick, variants_but_slow_beyond

DOCS = Path(__file__).parents[2] / "docs"


def counted_by_pytorch(name: str, size: int) -> tuple[int, int]:
    """Parameters, and multiply-adds of one image: outputs times the inputs that each is a sum of."""
    macs = 0

    def count(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * module.weight[0].numel()

    with torch.device("meta"):
        reference = torch_reference(name).eval()
        for module in reference.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                module.register_forward_hook(count)
        reference(torch.zeros(1, 3, size, size))
    return sum(parameter.numel() for parameter in reference.parameters()), macs


@variants_but_slow_beyond({"lenet", "mobilenet_v3_small", "resnet18", "shufflenet_v1_g1_x0_5", "vgg11"})
def test_as_published(name: str) -> None:
    model = create_model(name)
    summary = summarize(model)
    assert (summary.parameters, summary.macs) == counted_by_pytorch(name, model.image_size)
    if name in torchvision.models.list_models():
        published = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta
        # Auxiliary heads are in no layer, and not in torchvision's number either.
        assert sum(layer.parameters for layer in summary.layers) == published["num_params"]
        assert round(summary.macs / 1e9, 3) == published["_ops"]
    else:
        assert sum(layer.parameters for layer in summary.layers) <= summary.parameters
    row = f"| {name} | {model.image_size} | {summary.parameters:,} | {summary.macs / 1e6:,.1f} |"
    for page in ("models.md", "models.zh.md"):
        assert row in (DOCS / page).read_text(), f"{page}: python benchmarks/models_table.py"


@each_quick
def test_the_cost_is_the_summarys(name: str) -> None:
    model = create_model(name)
    summary = summarize(model)
    assert cost(model) == (summary.parameters, summary.macs)


# MobileNet's tables 6 and 8: millions of multiply-adds and of parameters.
MOBILENET_V1 = {
    "mobilenet_v1": (569, 4.2),
    "mobilenet_v1_075": (325, 2.6),
    "mobilenet_v1_050": (149, 1.3),
    "mobilenet_v1_025": (41, 0.5),
}
# ShuffleNet's table 1: millions, of convolutions only.
SHUFFLENET_V1 = {
    "shufflenet_v1_g1": 143,
    "shufflenet_v1_g2": 140,
    "shufflenet_v1_g3": 137,
    "shufflenet_v1_g4": 133,
    "shufflenet_v1_g8": 137,
}


@variants_but_slow_beyond({"mobilenet_v1"}, among=MOBILENET_V1)
def test_mobilenet_v1_paper(name: str) -> None:
    parameters, macs = cost(create_model(name))
    millions, parameters_in_millions = MOBILENET_V1[name]
    assert abs(macs / 1e6 - millions) < 0.51  # 149.5 is printed as 149
    assert round(parameters / 1e6, 1) == parameters_in_millions


@variants_but_slow_beyond({"shufflenet_v1_g3"}, among=SHUFFLENET_V1)
def test_shufflenet_v1_paper(name: str) -> None:
    convolutions = sum(layer.macs for layer in summarize(create_model(name)).layers if layer.kind == "Conv")
    assert round(convolutions / 1e6) == SHUFFLENET_V1[name]


def test_no_weights_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG19's take half a gigabyte: nothing may compile, run or be left on the device."""
    monkeypatch.setattr(jax, "jit", None)
    before = {id(array) for array in jax.live_arrays()}
    summary: Summary = summarize(create_model("vgg19"))
    assert summary.parameters == 143_667_240
    assert sum(array.nbytes for array in jax.live_arrays() if id(array) not in before) < 1000
