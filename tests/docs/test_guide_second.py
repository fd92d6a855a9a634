"""The chapters from ResNet to EfficientNet: what the library can compute is what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax import lax, nn

from benchmarks import results_table
from flaxcnn import create_model, list_models
from flaxcnn.analysis import Cost, Summary, basic_block_cost, bottleneck_cost, conv_cost, separable_cost, summarize
from flaxcnn.models import shufflenet_v1
from flaxcnn.weights import CHECKPOINTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RESULTS = results_table.read(DOCS / "results.json")
CHAPTERS = ("resnet", "resnext", "mobilenet", "shufflenet", "efficientnet")
PAGES = [f"guide/{chapter}{suffix}" for chapter in CHAPTERS for suffix in (".md", ".zh.md")]
PARAMETERS, MACS, TOP1 = ("parameters", "参数量"), ("multiply-adds (M)", "乘加数 (M)"), ("ImageNet top-1",)


def rows(page: str) -> Iterator[dict[str, str]]:
    """The lines of a page's tables of models, by the heads of their columns."""
    head: list[str] = []
    for line in (DOCS / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = ["name", *cells[1:]]
        else:
            cells[0] = re.sub(r"\[(.*)\]\(.*\)", r"\1", cells[0])
            if cells[0] in list_models():
                yield dict(zip(head, cells, strict=True))


def column(row: dict[str, str], names: tuple[str, ...]) -> str | None:
    """The cell under one of the heads."""
    return next((row[name] for name in names if name in row), None)


@cache
def summary(name: str, **options: Any) -> Summary:
    return summarize(create_model(name, **options))


def check_costs(row: dict[str, str], cost: Summary) -> None:
    assert column(row, PARAMETERS) == f"{cost.parameters:,}", row["name"]
    macs = column(row, MACS)
    assert macs is not None and float(macs.replace(",", "")) == round(cost.macs / 1e6, len(macs.partition(".")[2]))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_tables(page: str) -> None:
    top1 = {checkpoint.model: checkpoint.top1 for checkpoint in CHECKPOINTS if checkpoint.version == "v1"}
    found = list(rows(page))
    assert len(found) >= 3
    for row in found:
        check_costs(row, summary(row["name"]))
        published = column(row, TOP1)
        assert published is None or published == f"{top1[row['name']]:.2f}", row["name"]


@pytest.mark.slow
def test_results_are_as_their_program_writes_them(tmp_path: Path) -> None:
    """From the accuracies and seconds that it has kept; costs are counted anew."""
    results_table.write_pages(RESULTS, tmp_path)
    for page in results_table.PAGES:
        assert (tmp_path / page).read_text() == (DOCS / page).read_text(), f"{page} was changed by hand"


def test_kept_results_are_as_their_program_writes_them(tmp_path: Path) -> None:
    assert set(RESULTS) <= set(results_table.MODELS)
    results_table.write(tmp_path / "results.json", RESULTS)
    assert (tmp_path / "results.json").read_text() == (DOCS / "results.json").read_text()


# Where a page says what is in the table: the page, the network, and which of its numbers.
QUOTES = [
    ("docs/guide/alexnet.md", "alexnet_half", "top1"),
    ("docs/guide/googlenet.md", "googlenet", "top1"),
    ("docs/guide/vgg.md", "vgg11_bn", "top1"),
    ("docs/guide/resnet.md", "resnet18", "top1"),
    ("docs/guide/resnext.md", "resnext50_32x4d", "top1"),
    ("docs/guide/resnext.md", "resnext50_32x4d", "seconds"),
    ("docs/guide/resnext.md", "resnet18", "seconds"),
    ("docs/guide/mobilenet.md", "mobilenet_v2", "top1"),
    ("docs/guide/mobilenet.md", "mobilenet_v2", "seconds"),
    ("docs/guide/mobilenet.md", "mobilenet_v1", "top1"),
    ("docs/guide/mobilenet.md", "mobilenet_v3_small", "top1"),
    ("docs/guide/shufflenet.md", "shufflenet_v1_g3", "top1"),
    ("docs/guide/shufflenet.md", "shufflenet_v1_g3", "seconds"),
    ("docs/guide/shufflenet.md", "shufflenet_v2_x1_0", "top1"),
    ("docs/guide/shufflenet.md", "shufflenet_v2_x1_0", "seconds"),
    ("docs/guide/efficientnet.md", "efficientnet_b0", "top1"),
    ("docs/guide/efficientnet.md", "efficientnet_lite0", "top1"),
    ("configs/digits.py", "mobilenet_v2", "top1"),
]


@pytest.mark.parametrize(("page", "network", "what"), QUOTES)
def test_quotes_of_the_results(page: str, network: str, what: str) -> None:
    value = RESULTS[network][what]
    wanted = rf"{100 * value:.1f} ?%" if what == "top1" else rf"{value:.1f}(?: seconds| 秒|[;；,，。])"
    for file in (page, page.replace(".md", ".zh.md")):
        text = " ".join((ROOT / file).read_text().split())
        assert re.search(rf"(?<![\d.]){wanted}", text), f"{file} does not say {network}'s {what}: {value}"


def test_every_page_that_quotes_the_results_is_compared() -> None:
    """Those that name the table, but for the ones that only lead there."""
    files = [*DOCS.rglob("*.md"), *(ROOT / "configs").rglob("*.py"), ROOT / "README.md"]
    naming = {str(file.relative_to(ROOT)) for file in files if re.search(r"results(\.zh)?\.md", file.read_text())}
    leading = {"README.md", "docs/guide/index.md", "docs/training.md", "docs/results.md", "docs/results.zh.md"}
    assert {file.replace(".zh.md", ".md") for file in naming - leading} - leading == {page for page, _, _ in QUOTES}


@pytest.mark.parametrize("page", ["guide/resnet.md", "guide/resnet.zh.md"])
def test_layers_with_weights(page: str) -> None:
    for row in rows(page):
        layers = summary(row["name"]).layers
        count = sum(layer.kind in ("Conv", "Linear") and "downsample" not in layer.name for layer in layers)
        assert column(row, ("layers with weights", "带权重的层")) == str(count)


@pytest.mark.parametrize("page", ["guide/shufflenet.md", "guide/shufflenet.zh.md"])
def test_channels_of_stages(page: str) -> None:
    for row in rows(page):
        model: Any = create_model(row["name"])
        is_first = isinstance(model, shufflenet_v1.ShuffleNetV1)
        channels = [shufflenet_v1.CHANNELS[model.groups] * 2**i for i in range(3)] if is_first else model.channels
        assert column(row, ("channels of the stages", "各阶段的通道数")) == ", ".join(map(str, channels))


@pytest.mark.parametrize("page", ["guide/efficientnet.md", "guide/efficientnet.zh.md"])
def test_scaling(page: str) -> None:
    for row in rows(page):
        model: Any = create_model(row["name"])
        _, width, depth, size, dropout, *_ = row.values()
        assert (float(width), float(depth), float(dropout)) == (model.width, model.depth, model.dropout)
        assert int(size) == model.image_size


def share(layers: Any, kernel: tuple[int, int], what: str = "macs") -> float:
    """Percent of the convolutions with a kernel."""
    total = sum(getattr(layer, what) for layer in layers)
    return 100 * sum(getattr(layer, what) for layer in layers if layer.kernel == kernel) / total


def of(cost: Cost | Summary) -> tuple[str, str]:
    return f"{cost.parameters:,}", f"{cost.macs:,}"


def facts() -> Iterator[tuple[str, str]]:
    """A chapter and a number that stands in it."""
    yield "resnet", of(basic_block_cost(64, 56))[0]
    yield "resnet", of(bottleneck_cost(256, 64, 56))[0]
    yield "resnet", of(basic_block_cost(256, 56))[0]
    assert round(basic_block_cost(256, 56).parameters / bottleneck_cost(256, 64, 56).parameters) == 17
    yield "resnext", of(conv_cost(128, 128, 3, 56, groups=32))[0]
    yield "resnext", of(conv_cost(128, 128, 3, 56))[0]
    standard, separable = conv_cost(512, 512, 3, 14), separable_cost(512, 512, 3, 14)
    yield "mobilenet", of(standard)[1]
    yield "mobilenet", of(separable)[1]
    yield "mobilenet", f"{separable.macs / standard.macs:.3f}"
    first = summary("mobilenet_v1").layers
    yield "mobilenet", f"{share(first, (1, 1)):.1f} %"
    yield "mobilenet", f"{share(first, (1, 1), 'parameters'):.1f} %"
    second, third = ({x.name: x for x in summary(f"mobilenet_{v}").layers} for v in ("v2", "v3_large"))
    for layer in (second["features.0.0"], third["features.0.0"], second["features.18.0"]):
        yield "mobilenet", f"{layer.macs:,}"
    yield "mobilenet", f"{third['features.16.0'].macs:,}"
    yield "mobilenet", f"{third['classifier.0'].macs:,}"
    unit = [layer for layer in summary("resnext50_32x4d").layers if layer.name.startswith("layer2.1.")]
    yield "shufflenet", f"{share(unit, (1, 1)):.1f} %"
    base = summary("efficientnet_b0").macs
    for options in ({"depth": 2.0}, {"width": 2.0}, {"image_size": 448}):
        yield "efficientnet", f"{summary('efficientnet_b0', **options).macs / base:.2f}"
    yield "efficientnet", f"{1.2 * 1.1**2 * 1.15**2:.2f}"


@pytest.mark.slow
def test_numbers_in_the_text() -> None:
    for chapter, number in facts():
        for suffix in (".md", ".zh.md"):
            assert number in (DOCS / f"guide/{chapter}{suffix}").read_text(), f"{chapter}{suffix}: {number}"


def test_three_forms_of_a_resnext_block() -> None:
    """Those of the page against XLA's own grouped convolution."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "guide/resnext.md").read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/guide/resnext.md", "exec", dont_inherit=True), names)

    def convolve(x: Any, kernel: Any, groups: int = 1) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, feature_group_count=groups)

    y = nn.relu(convolve(names["x"], names["first"]))
    expected = convolve(nn.relu(convolve(y, names["second"], 32)), names["third"])
    scale = abs(expected).max()
    for form in ("form_a", "form_b", "form_c"):
        np.testing.assert_allclose(names[form] / scale, expected / scale, atol=1e-5, err_msg=form)
    shifted = convolve(nn.relu(convolve(np.roll(y, 1, axis=-1), names["second"], 32)), names["third"])
    assert abs(shifted - expected).max() > 0.1 * scale  # groups one channel off would be seen
