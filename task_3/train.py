"""Task 3: train the models whose latent spaces are shown: K = 2 for 3a, K = 32 for 3b, and 3c's.

Writes data/runs/<run>/ and report/results/<run>.json. Interrupted, it goes on where it was when called again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse

from common import cli

RUNS = [("bernoulli", 2), ("bernoulli", 32), ("inflated", 32)]  # p(X|z) and K


def main() -> None:
    options = cli.training_parser(__doc__, likelihood=None, latent_dim=None).parse_args()
    for likelihood, latent_dim in RUNS:
        cli.train(argparse.Namespace(**vars(options) | {"likelihood": likelihood, "latent_dim": latent_dim}))


if __name__ == "__main__":
    cli.main(main)
