"""Task 2a and 2e: the models on one scale, bits per dimension of grey test images.

Every trained model that says how probable a grey level is counts: by its ELBO on all test images, and by an
importance-weighted bound on some of them; beside them pixels without latents. Writes report/results/comparison.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common import evaluation as ev
from common.config import FAVOURITE, Config
from common.grey_levels import level_frequencies, level_of
from common.likelihoods import LIKELIHOODS
from common.runs import trained

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
    frequencies = level_frequencies(mnist.train.x).log()  # without latents each pixel has its own, (256, 1, 28, 28)
    bits = {"no latents": ev.bits_per_dimension(frequencies.gather(0, level_of(x)).sum(dim=(1, 2, 3)))}
    results = {"importance_images": len(few), "models": {"no latents": {}}}
    grey = [name for name in LIKELIHOODS if LIKELIHOODS[name]().grey_levels]
    for name in tqdm([name for name in grey if Config(name).run in trained(source.home)], desc="models"):
        vae = source.vae(Config(name).run, device)
        score = ev.grey_score(vae.likelihood, mnist.train.x)
        found = ev.elbo_by(vae, x, score)
        weights = ev.log_weights(vae, few, vae.q_z(few), SAMPLES[-1], score)
        bounds = {s: ev.bits_per_dimension(ev.importance_bound(weights, s)) for s in SAMPLES}
        bits[name] = ev.bits_per_dimension(found.elbo)
        bounds = [{"samples": s, **ev.mean_and_se(bound)} for s, bound in bounds.items()]
        results["models"][name] = {
            "kl": ev.mean_and_se(ev.bits_per_dimension(-found.kl)),
            "importance_weighted": bounds,
        }
    for name, mine in bits.items():  # the difference is paired: of the same images
        best = bits.get(FAVOURITE.likelihood, mine)
        results["models"][name] |= {"elbo": ev.mean_and_se(mine), "above_favourite": ev.mean_and_se(mine - best)}
    source.save("comparison", results)


if __name__ == "__main__":
    cli.main(main)
