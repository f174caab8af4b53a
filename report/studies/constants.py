"""What do constants that nobody measures do to the ELBO of a density? Short trainings that differ in one of them.

Other floors sigma_min of the Gaussian, other eps of the Beta's squeeze into (0, 1). Writes
report/results/constants.json: the ELBO of the validation images, and their bits per dimension.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common import evaluation as ev
from common.config import Config
from common.grey_levels import RESOLUTION
from common.likelihoods import EPS
from common.training import evaluate, make_learner, train_epoch
from common.vae import start_from_marginals

from tqdm import tqdm

VARIANTS = [Config("gaussian", sigma_min=value) for value in (0.05, 0.01, RESOLUTION)]
VARIANTS += [Config("beta", eps=value) for value in (EPS, 1e-4, 1e-6)]


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--epochs", type=cli.count(0), default=1, help="of each training (1)")
    options = parser.parse_args()
    mnist, source, device = cli.prepare(options)
    rows = []
    for config in tqdm(VARIANTS, desc="variants", unit="training"):
        vae, average, optimiser = make_learner(config, device)
        start_from_marginals(vae, mnist.train.x)
        for _ in range(options.epochs):
            train_epoch(vae, average, optimiser, mnist.train.x, config)
        grey = ev.elbo_by(average.module, mnist.val.x, ev.grey_score(vae.likelihood, mnist.train.x)).elbo
        name, value = ("sigma_min", config.sigma_min) if config.likelihood == "gaussian" else ("eps", config.eps)
        rows.append(
            {
                "likelihood": config.likelihood,
                "constant": name,
                "value": value,
                "elbo": ev.mean_and_se(evaluate(average.module, mnist.val.x).elbo),
                "bits_per_dimension": ev.mean_and_se(ev.bits_per_dimension(grey)),
            }
        )
    source.save("constants", {"epochs": options.epochs, "images": len(mnist.val.x), "rows": rows})


if __name__ == "__main__":
    cli.main(main)
