"""Task 4b: a few test images, their left halves, and these completed: x'_R is sampled, given x_L alone.

Writes a figure with the three columns of the task, and one with completions of the same images in proportion to their
posterior weight: there z is drawn from p(Z|x_L) itself, which may have modes that q(Z|Psi*) has not.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.annealing import anneal, log_joint
from common.config import FAVOURITE
from common.evaluation import own_score
from common.figures import columns_grid, save_figure
from common.vae import LEFT
from task_4.inference import infer

import torch

ROWS, MORE = 8, 6  # images; completions of each in the second figure
KEEP = 4  # optimisations whose q(Z|Psi*) the chains of the second figure start from
TITLES = ["$x$", "$x_L$, black", "$x_L, x'_R$"]


def main() -> None:
    options = cli.run_parser(__doc__, FAVOURITE.run).parse_args()
    mnist, vae, source = cli.load(options)
    cli.check_independent(vae, options.run)
    x, left = mnist.test.x[:ROWS], LEFT.to(mnist.test.x.device)
    found = infer(vae, x, left, keep=KEEP)  # Psi* from x_L: of the best start, the second, ...
    q_z = [one.psi.q_z() for one in found]
    posterior = log_joint(vae, x, own_score(vae.likelihood, LEFT))  # p(Z|x_L), up to its integral

    def completed(z: torch.Tensor) -> torch.Tensor:
        x_new = vae.likelihood.show(vae.p_x(z))  # x' ~ p(X|z)
        return torch.where(left, x, x_new)  # x_L and x'_R

    with torch.no_grad():
        three = [x, torch.where(left, x, 0.0), completed(q_z[0].sample())]  # z ~ q(Z|Psi*)
        more = [completed(z) for z in anneal(posterior, q_z).resampled(MORE)]  # z ~ p(Z|x_L)
    save_figure(columns_grid(three, TITLES, width=1.8), f"{options.run}-completions", source)
    titles = [*TITLES[:2], *map(str, range(1, MORE + 1))]
    save_figure(columns_grid([*three[:2], *more], titles, width=4.8), f"{options.run}-more-completions", source)


if __name__ == "__main__":
    cli.main(main)
