"""How much do new images look like MNIST's, and is p(Z) or p(X|z) to blame? A classifier judges 10,000 of each.

z comes from p(Z); where that is N(0, I), also from a mixture of Gaussians that was fitted to q(Z|x) of training images
when the model was done; from q(Z|x) of training images itself; and, since a model might only repeat these, of
validation images. The decoder is the same. Writes report/results/samples.json, with what each p(Z) does to the ELBO.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.config import CHOICES, LEARNED
from common.evaluation import bits_per_dimension, decoded, grey_mass, mean_and_se
from common.training import evaluate
from report.studies.classifier import frechet_distance, inception_score, load_classifier

import torch
from numpy.random import RandomState
from sklearn.mixture import GaussianMixture
from torch import Tensor

NEAREST = 1000  # images whose nearest training image is looked for


def main() -> None:
    draws = cli.number(2), 5, "sets of 10,000 images, for the errors"
    components = cli.number(1, 1000), [10, 20, 40], "of fitted mixtures"
    options, mnist, source, device = cli.with_data(__doc__, draws=draws, components=components)
    classifier = load_classifier(source, device)
    real, n = classifier.features(mnist.test.x), len(mnist.test.x)

    def looks(x: Tensor) -> dict:
        nearest = torch.cdist(x[:NEAREST].flatten(1), mnist.train.x.flatten(1)).amin(dim=1)
        return {"nearest": mean_and_se(nearest), "inception_score": inception_score(classifier(x).softmax(dim=1))}

    both = {"train": mnist.train.spread(n).x, "val": mnist.val.x}
    scale = {name: {"frechet": {"mean": frechet_distance(classifier.features(x), real)}} for name, x in both.items()}
    scale["val"] |= looks(mnist.val.x)
    results = {"images": n, "draws": options.draws, "real": scale, "models": {}}
    for config, vae in source.models(CHOICES + LEARNED, device):
        q_train, q_val = vae.q_z(mnist.train.spread(n).x), vae.q_z(mnist.val.x)
        places = {"train": q_train.sample, "val": q_val.sample, "prior": lambda p_z=vae.p_z: p_z.sample((n,))}
        found = results["models"][config.run] = {}
        if config.components:
            base = source.vae(replace(config, components=0, full_covariances=0).run, device)
            gain = evaluate(vae, mnist.val.x).elbo - evaluate(base, mnist.val.x).elbo
            found["learned"] = {"components": config.components, "elbo_gain": mean_and_se(gain)}
            if vae.likelihood.grey_levels:
                grey = evaluate(vae, mnist.test.x, score=grey_mass(vae.likelihood, mnist.train.x))
                found["learned"] |= {"bits": mean_and_se(bits_per_dimension(grey.elbo))}
        else:
            z_val, mixture = q_val.sample(), fitted(vae.q_z(mnist.train.x).sample(), q_val.sample(), options.components)
            gain = torch.from_numpy(mixture.score_samples(z_val.cpu().numpy())) - vae.p_z.log_prob(z_val).cpu()
            found["fitted_afterwards"] = {"components": mixture.n_components, "elbo_gain": mean_and_se(gain)}
            places["fitted"] = lambda p_z=mixture: torch.from_numpy(p_z.sample(n)[0]).float().to(device)
        for place, z in places.items():
            draws = [decoded(vae, z(), vae.likelihood.show) for _ in range(options.draws)]
            distances = torch.tensor([frechet_distance(classifier.features(x), real) for x in draws])
            found[place] = {"frechet": mean_and_se(distances)}
            found[place] |= looks(draws[0]) if place == "prior" else {}
    source.save("samples", results)


def fitted(z: Tensor, z_val: Tensor, sizes: list[int]) -> GaussianMixture:
    """Of mixtures of such sizes fitted to z (N, K) the one that makes z_val (M, K) most probable."""
    z, z_val = (part.double().cpu().numpy() for part in (z, z_val))
    # with a generator and not a number as random_state, since a number would give the same draws at each call of sample
    mixtures = [GaussianMixture(size, init_params="k-means++", random_state=RandomState(0)).fit(z) for size in sizes]
    return max(mixtures, key=lambda mixture: mixture.score(z_val))


if __name__ == "__main__":
    cli.main(main)
