"""Task 3a: mu(x_i) of the first 1000 test images for K = 2, coloured by label, and the images that the plane holds.

Writes the figure and report/results/task_3a-<run>.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib.pyplot as plt
import torch
from torch.distributions import Normal

from common import cli
from common.errors import UsageError
from common.evaluation import encode, neighbour_accuracy
from common.figures import latent_scatter, mosaic, save_figure
from common.runs import save_results

SIDE = 16  # images along each latent


@torch.no_grad()
def main() -> None:
    options = cli.run_parser(__doc__, "bernoulli", latent_dim=2).parse_args()
    mnist, vae, run = cli.load(options)
    if vae.latent_dim != 2:
        raise UsageError(f"run '{run}' has K = {vae.latent_dim}, this figure needs K = 2: --run bernoulli-k2")
    u = encode(vae, mnist.test.x)  # mu(x_i), (N, 2)

    figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 3.4))
    latent_scatter(left, u[:1000], mnist.test.y[:1000])
    left.set(xlabel="$\\mu_1(x_i)$", ylabel="$\\mu_2(x_i)$", title="first 1000 test images")
    quantiles = Normal(0.0, 1.0).icdf((torch.arange(SIDE) + 0.5) / SIDE).to(u.device)
    z = torch.cartesian_prod(-quantiles, quantiles).flip(1)  # rows from top to bottom, (SIDE^2, 2)
    right.imshow(
        mosaic(vae.likelihood.mean(vae.p_x(z)), SIDE).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
    )
    cells = [0, 4, 8, 12, SIDE - 1]
    centres = [28 * cell + 13.5 for cell in cells]
    right.set(xticks=centres, xticklabels=[f"{quantiles[cell]:.1f}" for cell in cells])
    right.set(yticks=centres, yticklabels=[f"{-quantiles[cell]:.1f}" for cell in cells])
    right.set(xlabel="$z_1$", ylabel="$z_2$", title="mean images at quantiles of p(Z)")
    save_figure(figure, f"{run}-latent-2d", run)
    u_train = encode(vae, mnist.train.x)
    accuracy = neighbour_accuracy(u_train, mnist.train.y, u, mnist.test.y)
    save_results(cli.name_for(mnist, f"task_3a-{options.run}"), {"neighbour_accuracy": accuracy}, run)


if __name__ == "__main__":
    cli.main(main)
