"""Task 3c: from one test image to another of a different digit, through the latent space.

With the inflated model of Task 2e (FAVOURITE in common/config.py), or another: --run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import FAVOURITE
from common.figures import columns_grid, save_figure

import torch

ROWS, BETWEEN = 8, 9  # rows of the figure; k images between x and x'


def main() -> None:
    options, mnist, vae, source = cli.with_model(__doc__, FAVOURITE.run)
    y = mnist.test.y.tolist()
    first = [i for i in range(0, len(y) - 1, 2) if y[i] != y[i + 1]][:ROWS]  # no image is in two pairs
    x, x_prime = mnist.test.x[first], mnist.test.x[[i + 1 for i in first]]  # 1. two images, y != y'
    z, z_prime = vae.q_z(x).sample(), vae.q_z(x_prime).sample()  # 2. z ~ q(Z|x), z' ~ q(Z|x'), once a row
    columns = [x]
    for lam in torch.linspace(1, 0, BETWEEN):
        z_lam = lam * z + (1 - lam) * z_prime  # 3. the linear interpolation
        columns.append(vae.likelihood.show(vae.p_x(z_lam)))  # 4. x_lam ~ p(X|z_lam)
    columns.append(x_prime)
    titles = ["$x$", "λ = 1", *(f"{lam:.3g}" for lam in torch.linspace(1, 0, BETWEEN)[1:]), "$x'$"]
    save_figure(columns_grid(columns, titles), f"{options.run}-interpolation", source)


if __name__ == "__main__":
    cli.main(main)
