"""Task 4a: test images, each with a reconstruction from q(Z|Psi*), found without the encoder, and one from q(Z|x).

The optimisation of Psi is in task_4/inference.py. With the inflated model of Task 2e (FAVOURITE in common/config.py),
or another: --run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import FAVOURITE
from common.figures import columns_grid, save_figure
from task_4.inference import infer

ROWS = 8


def main() -> None:
    options, mnist, vae, source = cli.with_model(__doc__, FAVOURITE.run)
    x = mnist.test.x[:ROWS]
    q_psi = infer(vae, x)[0].psi.q_z()  # q(Z|Psi*) for x', from each image's best start
    q_x = vae.q_z(x)  # q(Z|x) for x'', as in Task 1d
    new = [vae.likelihood.show(vae.p_x(q_z.sample())) for q_z in (q_psi, q_x)]  # z ~ q(Z), then x' ~ p(X|z)
    figure = columns_grid([x, *new], ["$x$", "$x'$", "$x''$"], width=2.2)
    save_figure(figure, f"{options.run}-psi-reconstructions", source)


if __name__ == "__main__":
    cli.main(main)
