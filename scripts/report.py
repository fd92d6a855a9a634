"""A run as one page: python scripts/report.py --workdir runs/lenet"""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # JAX loses a KeyboardInterrupt while it is imported

from flaxcnn.cli.main import script  # noqa: E402

if __name__ == "__main__":
    sys.exit(script("report"))
