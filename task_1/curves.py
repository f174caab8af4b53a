"""Task 1b: training and validation ELBO by epoch, from report/results/<run>.json."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.figures import elbo_curves, save_figure
from common.likelihoods import LIKELIHOODS
from common.runs import load_results
from common.training import learning_rate_drops


def main() -> None:
    options = cli.run_parser(__doc__, "gaussian").parse_args()
    run = cli.name_for(cli.prepare(options)[0], options.run)
    results = load_results(run)
    objective = LIKELIHOODS[results["likelihood"]].objective
    curves = elbo_curves(results["history"], results["best_epoch"], learning_rate_drops(results), objective)
    save_figure(curves, f"{run}-curves", run)


if __name__ == "__main__":
    cli.main(main)
