"""How much do new images look like MNIST's, and do they lack p(Z) or p(X|z)? A classifier judges 10,000 of each.

z comes from N(0, I), as the sheet has it, from q(Z|x) of training images, or, since a model might only repeat these, of
validation images; the decoder is the same. Writes report/results/samples.json: Frechet distance of the classifier's
features to those of the test images, scores of the predicted labels, and the distance to the nearest training image;
real validation images are the scale.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from collections.abc import Callable

from common import cli
from common.config import Config
from common.evaluation import mean_and_se
from common.likelihoods import LIKELIHOODS
from common.runs import trained
from common.vae import VAE
from report.studies.classifier import features, frechet_distance, label_probabilities, label_scores, load_classifier

import torch
from torch import Tensor
from torch.distributions import Distribution
from tqdm import tqdm

NEAREST = 1000  # images whose nearest training image is looked for


@torch.no_grad()
def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--draws", type=cli.count(2), default=5, help="sets of 10,000 images, for the errors (5)")
    options = parser.parse_args()
    mnist, source, device = cli.prepare(options)
    classifier = load_classifier(source, device)
    real, n = features(classifier, mnist.test.x), len(mnist.test.x)
    x_train = mnist.train.x.flatten(1)

    def judged(draws: list[Tensor]) -> dict:
        """Images (N, 1, 28, 28) of each draw."""
        distances = torch.tensor([frechet_distance(features(classifier, x), real) for x in draws])
        nearest = torch.cdist(draws[0][:NEAREST].flatten(1), x_train).amin(dim=1)
        scores = label_scores(label_probabilities(classifier, draws[0]))
        return {"frechet": mean_and_se(distances), "nearest": mean_and_se(nearest), **scores}

    results = {"images": n, "draws": options.draws, "real": judged([mnist.val.x] * 2), "models": {}}
    for name in tqdm([name for name in LIKELIHOODS if Config(name).run in trained(source.home)], desc="models"):
        vae = source.vae(Config(name).run, device)
        q_train, q_val = vae.q_z(mnist.train.spread(n).x), vae.q_z(mnist.val.x)
        places = {"prior": lambda p_z=vae.p_z: p_z.sample((n,)), "train": q_train.sample, "val": q_val.sample}
        shown = {name: vae.likelihood.show}
        if vae.likelihood.shows == "means":
            shown[f"{name}, samples"] = vae.likelihood.sample
        for label, draw in shown.items():
            torch.manual_seed(0)
            results["models"][label] = {
                place: judged([drawn(vae, sample(), draw) for _ in range(options.draws)])
                for place, sample in places.items()
            }
    source.save("samples", results)


def drawn(vae: VAE, z: Tensor, draw: Callable[[Distribution], Tensor]) -> Tensor:
    """An image for each z (N, K), (N, 1, 28, 28)."""
    return torch.cat([draw(vae.p_x(part)) for part in z.split(500)])


if __name__ == "__main__":
    cli.main(main)
