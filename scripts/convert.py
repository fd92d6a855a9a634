"""Weights from one kind of file to another: python scripts/convert.py --model resnet50 IN.pth OUT.safetensors"""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # JAX loses a KeyboardInterrupt while it is imported

from flaxcnn.cli.main import script  # noqa: E402

if __name__ == "__main__":
    sys.exit(script("convert"))
