"""How does the Bernoulli model compare with published ones? These are measured by log p(b) of test images b ~ p(B|x).

Writes report/results/binary-<run>.json: the ceiling of Task 2d's objective, the one-sample bound with q(Z|b), and a
bound with more samples on some images.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common import evaluation as ev
from common.config import Config
from common.likelihoods import BernoulliLikelihood
from common.mnist import Split
from common.training import evaluate

from torch.distributions import Bernoulli

SAMPLES = 256  # importance samples


def main() -> None:
    images = cli.number(2), 500, "for the bound with many samples"
    options, mnist, vae, source = cli.with_model(__doc__, Config("bernoulli").run, images=images)
    cli.require(isinstance(vae.likelihood, BernoulliLikelihood), options.run, "a Bernoulli model")
    p_b, score = Bernoulli(mnist.test.x), vae.likelihood.log_prob
    b = p_b.sample()
    few = Split(b, mnist.test.y).spread(options.images).x
    weights = ev.log_weights(vae, few, vae.q_z(few), SAMPLES, score)
    results = {
        "ceiling": ev.mean_and_se(-p_b.entropy().sum(dim=(1, 2, 3))),
        "one_sample": ev.mean_and_se(evaluate(vae, b).elbo),
        "importance_images": len(few),
        "importance_weighted": {"samples": SAMPLES, **ev.mean_and_se(ev.importance_bound(weights))},
    }
    source.save(f"binary-{options.run}", results)


if __name__ == "__main__":
    cli.main(main)
