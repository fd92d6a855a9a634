"""Weights from one kind of file to another: python scripts/convert.py --model resnet50 IN.pth OUT.safetensors"""

import sys

from flaxcnn.cli.main import script

if __name__ == "__main__":
    sys.exit(script("convert"))
