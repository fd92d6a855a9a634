"""Say what is in pictures: python scripts/predict.py --workdir runs/efficientnet_b0 IMAGE..."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # JAX loses a KeyboardInterrupt while it is imported

from flaxcnn.cli.main import script  # noqa: E402

if __name__ == "__main__":
    sys.exit(script("predict"))
