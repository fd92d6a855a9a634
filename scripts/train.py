"""Train a model: python scripts/train.py --config configs/efficientnet_b0.py"""

import sys

from flaxcnn.cli.main import script

if __name__ == "__main__":
    sys.exit(script("train"))
