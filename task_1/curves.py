"""Task 1b: training and validation ELBO by epoch, from report/results/<run>.json."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import TASK_1, Config
from common.figures import elbo_curves, save_figure


def main() -> None:
    options = cli.run_parser(__doc__, TASK_1.run).parse_args()
    source = cli.source_of(options)
    objective = Config.of_run(options.run).make_likelihood().objective
    save_figure(elbo_curves(source.results(options.run), objective), f"{options.run}-curves", source)


if __name__ == "__main__":
    cli.main(main)
