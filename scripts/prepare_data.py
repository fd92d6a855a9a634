"""Make a folder of images ready for training: python scripts/prepare_data.py split FOLDER OUT"""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # JAX loses a KeyboardInterrupt while it is imported

from flaxcnn.cli.main import script  # noqa: E402

if __name__ == "__main__":
    sys.exit(script("prepare_data"))
