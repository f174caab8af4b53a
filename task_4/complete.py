"""Task 4b: a few test images, their left halves, and these completed: x'_R is sampled, given x_L alone.

Writes a figure with the three columns of the task, and one with more completions of the same images.
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
TITLES = ["$x$", "$x_L$, black", "$x_L, x'_R$", "2nd", "3rd", "4th"]


def main() -> None:
    options = cli.run_parser(__doc__, FAVOURITE.run).parse_args()
    mnist, vae, source = cli.load(options)
    x, left = mnist.test.x[:ROWS], LEFT.to(mnist.test.x.device)
    columns = [x, torch.where(left, x, 0.0)]  # x; x_L and black
    for found in infer(vae, x, left, keep=4):  # Psi* from x_L: of the best start, the second, ...
        with torch.no_grad():
            z = found.psi.q_z().sample()  # z ~ q(Z|Psi*)
            x_new = vae.likelihood.show(vae.p_x(z))  # x' ~ p(X|z)
        columns.append(torch.where(left, x, x_new))  # x_L and x'_R
    save_figure(columns_grid(columns[:3], TITLES[:3], width=1.8), f"{options.run}-completions", source)
    save_figure(columns_grid(columns, TITLES, width=3.6), f"{options.run}-more-completions", source)


if __name__ == "__main__":
    cli.main(main)
