"""Task 1d: the first 32 test images, each beside its reconstruction."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import TASK_1
from common.figures import pairs_grid, save_figure


def main() -> None:
    options, mnist, vae, source = cli.with_model(__doc__, TASK_1.run)
    x = mnist.test.x[:32]
    q_z = vae.q_z(x)  # 1. the distribution q(Z|x)
    z = q_z.sample()  # 2. z ~ q(Z|x)
    p_x = vae.p_x(z)  # 3. the distribution p(X|z)
    x_new = vae.likelihood.sample(p_x)  # 4. x' ~ p(X|z), clipped to [0, 1]
    save_figure(pairs_grid(x, x_new), f"{options.run}-reconstructions", source)


if __name__ == "__main__":
    cli.main(main)
