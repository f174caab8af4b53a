"""Task 1d: new images, from the prior through the decoder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import TASK_1
from common.figures import image_grid, save_figure


def main() -> None:
    options = cli.run_parser(__doc__, TASK_1.run).parse_args()
    source = cli.source_of(options)
    vae = source.vae(options.run, cli.settle(options))
    z = vae.p_z.sample((64,))  # z ~ p(Z), (64, K)
    x_new = vae.likelihood.sample(vae.p_x(z))  # x' ~ p(X|z), clipped to [0, 1]
    save_figure(image_grid(x_new, columns=8), f"{options.run}-samples", source)


if __name__ == "__main__":
    cli.main(main)
