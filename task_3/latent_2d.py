"""Task 3a: mu(x_i) of the first 1000 test images for K = 2, coloured by label.

With the Bernoulli model of task_3/train.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import TASK_3
from common.figures import latent_scatter, legend_below, save_figure

import matplotlib.pyplot as plt
import torch

CROWDED = torch.tensor([0.1, 0.9])  # what is enlarged: the points between these shares, in each direction


def main() -> None:
    options, mnist, vae, source = cli.with_model(__doc__, TASK_3.run)
    cli.require(vae.latent_dim == 2, options.run, "K = 2")
    u, y = vae.q_z(mnist.test.x[:1000]).mean, mnist.test.y[:1000]  # mu(x_i), (1000, 2)

    figure, (whole, centre) = plt.subplots(1, 2, figsize=(6.5, 3.1), width_ratios=[1, 1.6])
    least, most = u.quantile(CROWDED.to(u), dim=0)
    middles = torch.stack([u[y == digit].median(dim=0).values for digit in range(10)])  # (10, 2)
    enlarged = ((least < middles) & (middles < most)).all(dim=1)  # (10,); the right panel names these
    outside = (~enlarged).nonzero().flatten().tolist()
    for axis, named in ((whole, outside), (centre, range(10))):
        latent_scatter(axis, u, y, named)
        axis.set(xlabel="$\\mu_1(x_i)$", ylabel="$\\mu_2(x_i)$", aspect="equal")
    (left, low), (right, high) = least.tolist(), most.tolist()
    centre.set(xlim=(left, right), ylim=(low, high))
    whole.add_patch(plt.Rectangle((left, low), right - left, high - low, fill=False, zorder=2))
    legend_below(figure, centre)
    save_figure(figure, f"{options.run}-latent-2d", source)


if __name__ == "__main__":
    cli.main(main)
