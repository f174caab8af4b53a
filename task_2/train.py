"""Task 2b to 2e: train the VAE with another p(X|z), one run for each --likelihood (default: all but Task 1's).

log p(x|z) and the discretisation of 2c are in common/likelihoods.py, one class each; all else is as in Task 1.
Writes data/runs/<run>/ and report/results/<run>.json. Interrupted, it goes on where it was when called again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import TASK_1
from common.likelihoods import LIKELIHOODS


def main() -> None:
    parser = cli.training_parser(__doc__)
    others = [name for name in LIKELIHOODS if name != TASK_1.likelihood]
    parser.add_argument("--likelihood", choices=list(LIKELIHOODS), nargs="+", default=others, help="one or more")
    cli.train_runs(parser.parse_args())


if __name__ == "__main__":
    cli.main(main)
