"""A config with several seeds: python scripts/sweep.py --config configs/lenet.py --seeds 0 1 2"""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # JAX loses a KeyboardInterrupt while it is imported

from flaxcnn.cli.main import script  # noqa: E402

if __name__ == "__main__":
    sys.exit(script("sweep"))
