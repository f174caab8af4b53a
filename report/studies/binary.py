"""How does the Bernoulli model compare with published ones? These are measured by log p(b) of test images b ~ p(B|x).

Writes report/results/binary.json: the objective of Task 2d and its ceiling on all test images, the one-sample bound
with q(Z|b) on all of them, and bounds with more samples on some, spread over the test set.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common import evaluation as ev
from common.config import Config
from common.likelihoods import BernoulliLikelihood
from common.mnist import Split

import torch
from torch.distributions import Bernoulli

SAMPLES = [1, 4, 16, 64, 256]  # importance samples


@torch.no_grad()
def main() -> None:
    parser = cli.run_parser(__doc__, Config("bernoulli").run)
    parser.add_argument("--images", type=cli.count(2), default=500, help="for the bounds with many samples (500)")
    options = parser.parse_args()
    mnist, vae, source = cli.load(options)
    cli.require(isinstance(vae.likelihood, BernoulliLikelihood), options.run, "a Bernoulli model")
    p_b = Bernoulli(mnist.test.x)
    b = p_b.sample()
    few, score = Split(b, mnist.test.y).spread(options.images).x, ev.own_score(vae.likelihood)
    weights = ev.log_weights(vae, few, vae.q_z(few), SAMPLES[-1], score)
    results = {
        "objective": ev.mean_and_se(ev.elbo_by(vae, mnist.test.x, score).elbo),
        "ceiling": ev.mean_and_se(-p_b.entropy().sum(dim=(1, 2, 3))),
        "one_sample": ev.mean_and_se(ev.elbo_by(vae, b, score).elbo),
        "importance_images": len(few),
        "importance_weighted": [{"samples": s, **ev.mean_and_se(ev.importance_bound(weights, s))} for s in SAMPLES],
    }
    source.save("binary", results)


if __name__ == "__main__":
    cli.main(main)
