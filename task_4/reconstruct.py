"""Task 4a: test images, each with a reconstruction from q(Z|Psi*), found without the encoder, and one from q(Z|x).

The optimisation of Psi is in task_4/inference.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import FAVOURITE
from common.figures import columns_grid, save_figure
from task_4.inference import infer

import torch

ROWS = 8


def main() -> None:
    options = cli.run_parser(__doc__, FAVOURITE.run).parse_args()
    mnist, vae, source = cli.load(options)
    x = mnist.test.x[:ROWS]
    found = infer(vae, x)[0]  # Psi* of each image by itself
    columns = [x]
    for q_z in (found.psi.q_z(), vae.q_z(x)):  # q(Z|Psi*) for x', and q(Z|x) as in Task 1d for x''
        with torch.no_grad():
            columns.append(vae.likelihood.show(vae.p_x(q_z.sample())))  # z ~ q(Z), then a sample of p(X|z)
    save_figure(columns_grid(columns, ["x", "x'", "x''"], width=2.2), f"{options.run}-psi-reconstructions", source)


if __name__ == "__main__":
    cli.main(main)
