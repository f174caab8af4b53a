"""How much do new images look like MNIST's? A classifier judges 10,000 of each model, and real ones as the scale.

Writes report/results/samples.json: Frechet distance of the classifier's features to those of the test images, and
scores of the predicted labels.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from collections.abc import Callable

from common import cli
from common.config import Config
from common.likelihoods import LIKELIHOODS
from common.runs import trained
from common.vae import VAE
from report.studies.classifier import features, frechet_distance, label_probabilities, label_scores, load_classifier

import torch
from torch import Tensor
from torch.distributions import Distribution
from tqdm import tqdm


@torch.no_grad()
def main() -> None:
    mnist, source, device = cli.prepare(cli.parser(__doc__).parse_args())
    classifier = load_classifier(source, device)
    real = features(classifier, mnist.test.x)

    def judged(x: Tensor) -> dict[str, float]:
        scores = {"frechet": frechet_distance(features(classifier, x), real)}
        return scores | label_scores(label_probabilities(classifier, x))

    results = {"images": len(real), "real": judged(mnist.train.x[: len(real)]), "models": {}}
    results["real"] |= label_scores(label_probabilities(classifier, mnist.test.x))
    for name in tqdm([name for name in LIKELIHOODS if Config(name).run in trained(source.home)], desc="models"):
        vae = source.vae(Config(name).run, device)
        torch.manual_seed(0)
        z = vae.p_z.sample((len(real),))
        results["models"][name] = judged(drawn(vae, z, vae.likelihood.show))
        if vae.likelihood.shows == "means":
            results["models"][name]["binary"] = judged(drawn(vae, z, vae.likelihood.sample))
    source.save("samples", results)


def drawn(vae: VAE, z: Tensor, draw: Callable[[Distribution], Tensor]) -> Tensor:
    """An image for each z (N, K), (N, 1, 28, 28)."""
    return torch.cat([draw(vae.p_x(part)) for part in z.split(500)])


if __name__ == "__main__":
    cli.main(main)
