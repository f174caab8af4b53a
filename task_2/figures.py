"""Task 2b to 2e: for each p(X|z) the ELBO curves, 32 reconstructions and new images, as in Task 1.

For Bernoulli the images are the conditional means E[B|z], as the task allows; the binary samples are drawn beside them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common import cli
from common.config import Config
from common.figures import elbo_curves, image_grid, pairs_grid, save_figure
from common.likelihoods import LIKELIHOODS
from common.runs import load_results
from common.training import learning_rate_drops


@torch.no_grad()
def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--likelihood", choices=list(LIKELIHOODS), nargs="+", default=list(LIKELIHOODS)[1:])
    options = parser.parse_args()
    mnist, device = cli.prepare(options)
    x = mnist.test.x[:32].to(device)
    for likelihood in options.likelihood:
        run = Config(likelihood).run_name(mnist.name)
        vae = cli.load_run(run, device)
        torch.manual_seed(0)
        results = load_results(run)
        drops = learning_rate_drops(results)
        curves = elbo_curves(results["history"], results["best_epoch"], drops, vae.likelihood.objective)
        save_figure(curves, f"{run}-curves", run)
        z, z_new = vae.q_z(x).sample(), vae.p_z.sample((64,))
        name = "mean" if vae.likelihood.images == "means" else "x'"
        save_figure(pairs_grid(x, vae.images(z), name), f"{run}-reconstructions", run)
        save_figure(image_grid(vae.images(z_new), columns=8), f"{run}-samples", run)
        if vae.likelihood.images == "means":
            binary = vae.likelihood.sample(vae.p_x(z_new[:16]))
            save_figure(image_grid(binary, columns=8), f"{run}-binary-samples", run)


if __name__ == "__main__":
    cli.main(main)
