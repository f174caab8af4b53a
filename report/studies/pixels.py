"""What are MNIST's pixels like? Shares of black and saturated ones, and of the rarest bin of Task 2c.

Writes report/results/pixels.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.grey_levels import level_of
from common.likelihoods import CategoricalLikelihood


def main() -> None:
    mnist, source, _ = cli.prepare(cli.parser(__doc__).parse_args())
    level = level_of(mnist.train.x)
    bins = CategoricalLikelihood().observe(mnist.train.x).flatten().bincount() / level.numel()
    ink = (level > 0).double().mean().item()
    saturated = ((level >= 252) & (level <= 254)).double().mean().item() / ink  # of the pixels that are not black
    source.save("pixels", {"black": 1 - ink, "saturated": saturated, "rarest_bin": bins.min().item()})


if __name__ == "__main__":
    cli.main(main)
