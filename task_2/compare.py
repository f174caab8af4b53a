"""Task 2a and 2e: the models on one scale, bits per dimension of grey test images: report/results/comparison.json.

Every trained model that gives grey levels probabilities, by its ELBO on all test images and by an importance-weighted
bound on some of them; pixels without latents; and paired differences."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common import evaluation as ev
from common.config import CHOICES, FAVOURITE

import torch
from tqdm import tqdm

SAMPLES = [1, 4, 16, 64, 256]  # importance samples


@torch.no_grad()
def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--images", type=cli.count(2), default=500, help="for the importance-weighted bounds (500)")
    options = parser.parse_args()
    mnist, source, device = cli.prepare(options)
    x, few = mnist.test.x, mnist.test.spread(options.images).x
    bits = {"no latents": ev.bits_without_latents(mnist.train.x, x)}
    results = {"importance_images": len(few), "models": {"no latents": {}}}
    grey = [config.run for config in source.trained(CHOICES) if config.make_likelihood().grey_levels]
    for run in tqdm(grey, desc="models"):
        vae = source.vae(run, device)
        score = ev.grey_score(vae.likelihood, mnist.train.x)
        found = ev.elbo_by(vae, x, score)
        weights = ev.log_weights(vae, few, vae.q_z(few), SAMPLES[-1], score)
        bounds = [(s, ev.bits_per_dimension(ev.importance_bound(weights, s))) for s in SAMPLES]
        bits[run] = ev.bits_per_dimension(found.elbo)
        results["models"][run] = {
            "reconstruction": ev.mean_and_se(ev.bits_per_dimension(found.log_likelihood)),
            "kl": ev.mean_and_se(ev.bits_per_dimension(-found.kl)),
            "importance_weighted": [{"samples": s, **ev.mean_and_se(bound)} for s, bound in bounds],
        }
    for name, mine in bits.items():  # differences are of the same images: paired
        above = mine - bits.get(FAVOURITE.run, mine)
        results["models"][name] |= {"elbo": ev.mean_and_se(mine), "above_favourite": ev.mean_and_se(above)}
    source.save("comparison", results)


if __name__ == "__main__":
    cli.main(main)
