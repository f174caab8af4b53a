"""Task 3a: mu(x_i) of the first 1000 test images for K = 2, coloured by label, and the images that the plane holds."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import TASK_3
from common.evaluation import encode, mean_images
from common.figures import GREY, latent_scatter, save_figure
from common.vae import VAE

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch.distributions import Normal
from torchvision.utils import make_grid

SIDE = 16  # images along each latent


def main() -> None:
    options = cli.run_parser(__doc__, TASK_3.run).parse_args()
    mnist, vae, source = cli.load(options)
    cli.check_latents(vae, options.run, at_least=2, at_most=2)
    u = encode(vae, mnist.test.x[:1000])  # mu(x_i), (1000, 2)

    figure, axis = plt.subplots(figsize=(6.5, 3.8))
    latent_scatter(axis, u, mnist.test.y[:1000])
    axis.set(xlabel="$\\mu_1(x_i)$", ylabel="$\\mu_2(x_i)$")
    save_figure(figure, f"{options.run}-latent-2d", source)
    save_figure(draw_plane(vae), f"{options.run}-plane", source)


def draw_plane(vae: VAE) -> Figure:
    """E[X|z] for z at the quantiles of p(Z)."""
    figure, axis = plt.subplots(figsize=(3.2, 3.2))
    quantiles = Normal(0.0, 1.0).icdf((torch.arange(SIDE) + 0.5) / SIDE)
    z = torch.cartesian_prod(-quantiles, quantiles).flip(1).to(vae.zeros.device)  # rows from top to bottom, (SIDE^2, 2)
    axis.imshow(make_grid(mean_images(vae, z).cpu(), SIDE, padding=0)[0].numpy(), **GREY)
    cells = [0, 4, 8, 12, SIDE - 1]
    centres = [28 * cell + 13.5 for cell in cells]
    axis.set(xlabel="$z_1$", xticks=centres, xticklabels=[f"{quantiles[cell]:.1f}" for cell in cells])
    axis.set(ylabel="$z_2$", yticks=centres, yticklabels=[f"{-quantiles[cell]:.1f}" for cell in cells])
    return figure


if __name__ == "__main__":
    cli.main(main)
