"""Write the two tables of whole networks of docs/speed.md, in both languages, from what compare.py has measured.

    python benchmarks/compare.py --frameworks flaxcnn torch torch-compile xla --rounds 5 --seconds 10 \\
        --json docs/speed.json
    python benchmarks/speed_tables.py

It reads docs/speed.json and the pages as they are in docs/, and changes nothing but the tables' rows.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path
from statistics import geometric_mean

from compare import PHASES, Results, over

DOCS = Path(__file__).resolve().parents[1] / "docs"
MEANS = {"speed.md": "geometric mean", "speed.zh.md": "几何平均"}
"""Of each page, what its last row is called."""
OTHERS = ("torch", "torch-compile", "xla")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS, help="folder to write the pages into; default: docs/")
    options = parser.parse_args()
    if not options.out.is_dir():
        parser.error(f"argument --out: {options.out} is no folder")
    results = json.loads((DOCS / "speed.json").read_text())
    for page, mean in MEANS.items():
        (options.out / page).write_text(with_tables((DOCS / page).read_text(), results, mean))


def with_tables(page: str, results: Results, mean: str) -> str:
    """The page, with the rows of its tables of models written anew.

    Raises:
        ValueError: when it has not two such tables.
    """
    bodies = iter((times(results, mean), memory(results, mean)))
    head = r"^(\| (?:model|模型) \|.*\n\|-.*\n)(?:\|.*\n)+"
    if len(re.findall(head, page, flags=re.MULTILINE)) != 2:
        raise ValueError("two tables of models are expected in docs/speed.md and docs/speed.zh.md")
    return re.sub(head, lambda found: found[1] + "\n".join(next(bodies)) + "\n", page, flags=re.MULTILINE)


def times(results: Results, mean: str) -> list[str]:
    """The ratios of flaxcnn's time to each other's, in both phases."""
    rows = {
        model: [over(results[phase][model], other)[0] for phase in PHASES for other in OTHERS]
        for model in results["training"]
    }
    means = map(geometric_mean, zip(*rows.values(), strict=True))
    return [*(row(model, decimals(ratios)) for model, ratios in rows.items()), row(mean, decimals(means))]


def memory(results: Results, mean: str) -> list[str]:
    """In training: the seconds to the end of the first step, and the ratios of memory to PyTorch's."""
    training = results["training"]
    ratios = {model: over(training[model], "torch")[1:] for model in training}
    lines = []
    for model in training:
        seconds = [f"{training[model][mode]['compile_seconds']:.0f}" for mode in ("flaxcnn", "xla")]
        lines.append(row(model, [*seconds, *decimals(ratios[model])]))
    means = map(geometric_mean, zip(*ratios.values(), strict=True))
    return [*lines, row(mean, ["", "", *decimals(means)])]


def decimals(numbers: Iterable[float]) -> list[str]:
    return [f"{number:.2f}" for number in numbers]


def row(name: str, cells: Iterable[str]) -> str:
    """Of a Markdown table."""
    return "|" + "|".join(f" {cell} " if cell else " " for cell in (name, *cells)) + "|"


if __name__ == "__main__":
    main()
