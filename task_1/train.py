"""Task 1b and 1c: train the VAE with the Gaussian p(X|z) until the stopping criterion ends it.

Writes data/runs/<run>/ and report/results/<run>.json. Interrupted, it goes on where it was when called again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli


def main() -> None:
    options = cli.training_parser(__doc__, likelihood="gaussian").parse_args()
    cli.train(options)


if __name__ == "__main__":
    cli.main(main)
