"""Look at a data set and prepare it: python scripts/prepare_data.py check FOLDER"""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # JAX loses a KeyboardInterrupt while it is imported

from flaxcnn.cli.main import script  # noqa: E402

if __name__ == "__main__":
    sys.exit(script("prepare_data"))
