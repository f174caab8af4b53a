"""Task 1d: new images, from the prior through the decoder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common import cli
from common.figures import image_grid, save_figure


@torch.no_grad()
def main() -> None:
    options = cli.run_parser(__doc__, "gaussian").parse_args()
    _, vae, run = cli.load(options)
    z = vae.p_z.sample((64,))  # z ~ p(Z), (64, K)
    x_new = vae.likelihood.sample(vae.p_x(z))  # x' ~ p(X|z)
    save_figure(image_grid(x_new, columns=8), f"{run}-samples", run)


if __name__ == "__main__":
    cli.main(main)
