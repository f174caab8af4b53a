"""Task 2b to 2e: for each p(X|z) the ELBO curves, 32 reconstructions and new images, as in Task 1.

For Bernoulli the images are the conditional means E[B|z], as the task allows; binary samples are in another figure.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import TASK_1, Config
from common.figures import elbo_curves, image_grid, pairs_grid, save_figure
from common.likelihoods import LIKELIHOODS


def main() -> None:
    others = [Config(name).run for name in LIKELIHOODS if name != TASK_1.likelihood]
    options = cli.run_parser(__doc__, *others).parse_args()
    mnist = cli.prepare(options)[0]
    for run in options.run:
        options.run = run  # so each run's figures carry their own command, and start from the seed, alone or not
        device, source = cli.settle(options), cli.source_of(options, mnist.name)
        vae, x = source.vae(run, device), mnist.test.x[:32]
        likelihood = vae.likelihood
        save_figure(elbo_curves(source.results(run), likelihood.objective), f"{run}-curves", source)  # as in Task 1b
        z = vae.q_z(x).sample()  # as in Task 1d: z ~ q(Z|x) for reconstructions,
        z_new = vae.p_z.sample((64,))  # z ~ p(Z) for new images,
        x_new, new = (likelihood.show(vae.p_x(latents)) for latents in (z, z_new))  # and x' ~ p(X|z), or means
        name = "mean" if likelihood.shows == "means" else "$x'$"
        save_figure(pairs_grid(x, x_new, name), f"{run}-reconstructions", source)
        save_figure(image_grid(new, columns=8), f"{run}-samples", source)
        if likelihood.shows == "means":
            binary = likelihood.sample(vae.p_x(z_new[:16]))
            save_figure(image_grid(binary, columns=8), f"{run}-binary-samples", source)


if __name__ == "__main__":
    cli.main(main)
