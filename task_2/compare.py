"""Task 2a and 2e: the models on one scale, bits per dimension of grey test images: report/results/comparison.json.

Each by its ELBO, and on some images by an importance-weighted bound; pixels without latents; paired differences."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common import evaluation as ev
from common.config import FAVOURITE, ON_GREY_LEVELS
from common.grey_levels import PRIOR_IMAGES, level_frequencies, level_of
from common.training import evaluate

SAMPLES = 256  # importance samples


def main() -> None:
    options, mnist, source, device = cli.with_data(__doc__, images=(cli.number(2), 500, "test images for the bounds"))
    x, few = mnist.test.x, mnist.test.spread(options.images).x
    alone = level_frequencies(mnist.train.x).log().gather(0, level_of(x)).sum(dim=(1, 2, 3))  # each pixel by itself
    bits = {"no latents": ev.bits_per_dimension(alone)}
    results = {"importance_images": len(few), "prior_images": PRIOR_IMAGES, "models": {"no latents": {}}}
    for config, vae in source.models(ON_GREY_LEVELS, device):
        score = ev.grey_mass(vae.likelihood, mnist.train.x)
        found = evaluate(vae, x, score=score)
        bound = ev.importance_bound(ev.log_weights(vae, few, vae.q_z(few), SAMPLES, score))
        bits[config.run] = ev.bits_per_dimension(found.elbo)
        results["models"][config.run] = {
            "reconstruction": ev.mean_and_se(ev.bits_per_dimension(found.log_likelihood)),
            "kl": ev.mean_and_se(ev.bits_per_dimension(-found.kl)),
            "importance_weighted": {"samples": SAMPLES, **ev.mean_and_se(ev.bits_per_dimension(bound))},
        }
    for name, mine in bits.items():
        results["models"][name]["elbo"] = ev.mean_and_se(mine)
        if FAVOURITE.run in bits:  # of the same images: paired
            results["models"][name]["above_favourite"] = ev.mean_and_se(mine - bits[FAVOURITE.run])
    source.save("comparison", results)


if __name__ == "__main__":
    cli.main(main)
