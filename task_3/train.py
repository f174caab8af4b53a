"""Task 3a: train the model with a two-dimensional latent space. (3b and 3c use models of Task 2.)

Writes data/runs/<run>/ and report/results/<run>.json. Interrupted, it goes on where it was when called again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import TASK_3


def main() -> None:
    cli.train_runs(cli.training_parser(__doc__, TASK_3).parse_args())


if __name__ == "__main__":
    cli.main(main)
