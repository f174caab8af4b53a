"""Task 4b: a few test images, their left halves, and these completed: x'_R is sampled, given x_L alone.

With the inflated model of Task 2e (FAVOURITE in common/config.py), or another: --run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import FAVOURITE
from common.figures import columns_grid, save_figure
from common.vae import LEFT
from task_4.inference import infer

import torch

ROWS = 8
TITLES = ["$x$", "$x_L$, black", "$x_L, x'_R$"]


def main() -> None:
    options, mnist, vae, source = cli.with_model(__doc__, FAVOURITE.run)
    cli.require(vae.likelihood.independent, options.run, "pixels that are independent given z")
    x, left = mnist.test.x[:ROWS], LEFT.to(mnist.test.x.device)
    x_left = torch.where(left, x, 0.0)  # all that is known of x
    q_z = infer(vae, x_left, left)[0].psi.q_z()  # from the best start; Psi* of the left half alone
    x_new = vae.likelihood.show(vae.p_x(q_z.sample()))  # z ~ q(Z|Psi*), x' ~ p(X|z)
    columns = [x, x_left, torch.where(left, x_left, x_new)]
    save_figure(columns_grid(columns, TITLES, width=1.8), f"{options.run}-completions", source)


if __name__ == "__main__":
    cli.main(main)
