"""Evaluate a run: python scripts/evaluate.py --workdir runs/efficientnet_b0"""

import sys

from flaxcnn.cli.main import script

if __name__ == "__main__":
    sys.exit(script("evaluate"))
