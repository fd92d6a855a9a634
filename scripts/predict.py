"""Say what is in pictures: python scripts/predict.py --workdir runs/efficientnet_b0 IMAGE..."""

import sys

from flaxcnn.cli.main import script

if __name__ == "__main__":
    sys.exit(script("predict"))
