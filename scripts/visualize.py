"""What a network looks at: python scripts/visualize.py grad_cam --model efficientnet_lite0 IMAGE..."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # JAX loses a KeyboardInterrupt while it is imported

from flaxcnn.cli.main import script  # noqa: E402

if __name__ == "__main__":
    sys.exit(script("visualize"))
