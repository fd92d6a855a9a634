"""How long `import flaxcnn` takes, against `import flax, optax`.

    python benchmarks/import_time.py

Each import runs in a process of its own, in turns; the time is that of the import statement.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

PROGRAM = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def main() -> None:
    """Print the median of the ratios of neighbouring imports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    pairs = [(seconds("flaxcnn"), seconds("flax, optax")) for _ in range(options.rounds + 1)][1:]  # the first warms up
    ratios = [ours / theirs for ours, theirs in pairs]
    print(
        f"import flaxcnn {statistics.median(ours for ours, _ in pairs):.2f} s, "
        f"import flax, optax {statistics.median(theirs for _, theirs in pairs):.2f} s, "
        f"ratio {statistics.median(ratios):.3f} (median of {options.rounds}, {min(ratios):.3f} to {max(ratios):.3f})"
    )


def seconds(modules: str) -> float:
    """Of an import in a fresh process."""
    command = [sys.executable, "-c", PROGRAM.format(modules)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
