"""Task 3a and 3b: train the preferred model with a two-dimensional latent space, and with K = 32.

Writes data/runs/<run>/ and report/results/<run>.json. Interrupted, it goes on where it was when called again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse

from common import cli


def main() -> None:
    parser = cli.training_parser(__doc__, latent_dim=None, likelihood=None)
    parser.add_argument("--likelihood", default="inflated", help="p(X|z) (inflated)")
    parser.add_argument("--latent-dim", type=int, nargs="+", default=[2, 32], help="the values of K (2 and 32)")
    options = parser.parse_args()
    for latent_dim in options.latent_dim:
        cli.train(argparse.Namespace(**vars(options) | {"latent_dim": latent_dim}))


if __name__ == "__main__":
    cli.main(main)
