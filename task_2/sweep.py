"""Task 2a: how the ELBOs of densities move with constants that nobody measures. Writes report/results/sweep.json.

Short trainings with other floors sigma_min of the Gaussian and other eps of the Beta's squeeze into (0, 1): the ELBO of
the validation images, and their bits per dimension as probabilities of grey levels.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tqdm import tqdm

from common import cli
from common import evaluation as ev
from common.config import Config
from common.likelihoods import STEP, BetaLikelihood, Gaussian, Likelihood
from common.mnist import Mnist
from common.runs import save_results
from common.training import evaluate, make_learner, train_epoch
from common.vae import start_from_marginals

SETTINGS = [("gaussian", "sigma_min", Gaussian, value) for value in (0.05, 0.01, STEP)]
SETTINGS += [("beta", "eps", BetaLikelihood, value) for value in (1 / 512, 1e-4, 1e-6)]


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--max-epochs", type=cli.count(1), default=1, help="of each training (1)")
    options = parser.parse_args()
    mnist = cli.mnist_on(*cli.prepare(options))
    rows = []
    for name, constant, likelihood, value in tqdm(SETTINGS, desc="settings", unit="training"):
        torch.manual_seed(0)
        scores = train_briefly(Config(name), likelihood(value), mnist, options.max_epochs)
        rows.append({"likelihood": name, "constant": constant, "value": value, **scores})
    save_results(cli.name_for(mnist, "sweep"), {"epochs": options.max_epochs, "images": len(mnist.val.x), "rows": rows})


def train_briefly(config: Config, likelihood: Likelihood, mnist: Mnist, epochs: int) -> dict:
    vae, average, optimiser = make_learner(config, mnist.train.x.device)
    vae.likelihood = average.module.likelihood = likelihood
    start_from_marginals(vae, mnist.train.x)
    for _ in range(epochs):
        train_epoch(vae, average, optimiser, mnist.train.x, config)
    with torch.no_grad():
        grey = ev.elbo_by(average.module, mnist.val.x, ev.grey_score(vae.likelihood, mnist.train.x))
    elbo = evaluate(average.module, mnist.val.x).elbo
    return {"elbo": ev.mean_and_se(elbo), "bits_per_dimension": ev.bits_per_dimension(grey)}


if __name__ == "__main__":
    cli.main(main)
