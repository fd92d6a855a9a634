"""The sums of a first course: python scripts/arithmetic.py output_size --size 224 --kernel 7 --stride 2 --padding 3"""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # JAX loses a KeyboardInterrupt while it is imported

from flaxcnn.cli.main import script  # noqa: E402

if __name__ == "__main__":
    sys.exit(script("arithmetic"))
