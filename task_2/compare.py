"""Task 2a and 2e: the models on common scales. Writes report/results/comparison.json and a figure.

- Bits per dimension: every model that can is read as a probability of the 256 grey levels, by its ELBO on all test
  images and by an importance-weighted bound on the first of them; without latents as the baseline.
- The Bernoulli model on its own scale: log p(b) of test images b ~ p(B|x).
- Scores without likelihoods: Frechet distance and label scores of 10,000 new images, errors of reconstructions,
  nearest-neighbour accuracy of mu(x), active latents.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.distributions import Bernoulli
from tqdm import tqdm

from common import cli
from common import evaluation as ev
from common.classifier import Classifier, label_probabilities, load_classifier
from common.config import Config
from common.figures import COLOURS, save_figure
from common.likelihoods import LEVELS, LIKELIHOODS
from common.mnist import Mnist
from common.runs import save_results
from common.vae import VAE, grey_level_frequencies

SAMPLES = [1, 4, 16, 64, 256]  # importance samples


@torch.no_grad()
def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--images", type=cli.count(2), default=500, help="for the importance-weighted bounds (500)")
    options = parser.parse_args()
    mnist, device = cli.prepare(options)
    mnist = cli.mnist_on(mnist, device)
    classifier = load_classifier(cli.name_for(mnist, "classifier"), device)
    torch.manual_seed(0)
    results = {"data": describe(mnist.train.x), "baseline": baseline(mnist)}
    results |= {"importance_images": min(options.images, len(mnist.test.x)), "models": {}}
    real = classifier.features(mnist.test.x)
    results["real"] = {"frechet": ev.frechet_distance(classifier.features(mnist.train.x[: len(real)]), real)}
    results["real"] |= ev.label_scores(label_probabilities(classifier, mnist.test.x))
    for likelihood in tqdm(LIKELIHOODS, desc="models", unit="model"):
        vae = cli.load_run(Config(likelihood).run_name(mnist.name), device)
        if vae.likelihood.grey_levels:
            scores = {"grey_levels": grey_levels(vae, mnist, options.images)}
        else:
            scores = {"binary": binary_images(vae, mnist, options.images)}
        z = vae.p_z.sample((len(mnist.test.x),))
        scores |= judged(torch.cat([vae.images(part) for part in z.split(500)]), classifier, real)
        if vae.likelihood.images == "means":
            sampled = torch.cat([vae.likelihood.sample(vae.p_x(part)) for part in z.split(500)])
            scores["samples"] = judged(sampled, classifier, real)
        results["models"][likelihood] = scores | latents(vae, mnist)
    runs = [Config(likelihood).run_name(mnist.name) for likelihood in LIKELIHOODS]
    save_results(cli.name_for(mnist, "comparison"), results, *runs)
    draw(results, cli.name_for(mnist, "comparison"), runs)


def judged(x: Tensor, classifier: Classifier, real: Tensor) -> dict[str, float]:
    """Images (N, 1, 28, 28) by a classifier's eyes; real (M, F): its features of real images."""
    scores = {"frechet": ev.frechet_distance(classifier.features(x), real)}
    return scores | ev.label_scores(label_probabilities(classifier, x))


def describe(x: Tensor) -> dict[str, float]:
    """Shares of pixels: black ones, saturated ones among the others, and those of the rarest bin of Task 2c."""
    level = (x * (LEVELS - 1)).round()
    bins = LIKELIHOODS["categorical"].observe(x).flatten().bincount() / x.numel()
    return {
        "black": (level == 0).double().mean().item(),
        "saturated": ((level >= 252) & (level <= 254)).double().mean().item() / (level > 0).double().mean().item(),
        "rarest_bin": bins.min().item(),
    }


def baseline(mnist: Mnist) -> dict[str, float]:
    """Bits per dimension without latents: each pixel has its own grey-level frequencies of the training images."""
    frequencies = grey_level_frequencies(mnist.train.x)  # (256, 1, 28, 28)
    level = (mnist.test.x * (LEVELS - 1)).round().long()
    return ev.bits_per_dimension(frequencies.gather(0, level).log().sum(dim=(1, 2, 3)))


def grey_levels(vae: VAE, mnist: Mnist, images: int) -> dict:
    """Bits per dimension by the ELBO, and by the importance-weighted bound for growing numbers of samples."""
    score = ev.grey_score(vae.likelihood, mnist.train.x)
    x = spread(mnist.test.x, images)
    weights = ev.log_weights(vae, x, vae.q_z(x), SAMPLES[-1], score)
    bounds = [{"samples": s, **ev.bits_per_dimension(ev.importance_bound(weights, s))} for s in SAMPLES]
    return {"elbo": ev.bits_per_dimension(ev.elbo_by(vae, mnist.test.x, score)), "importance_weighted": bounds}


def spread(x: Tensor, images: int) -> Tensor:
    """So many of x at equal distances: the first half of MNIST's test images is easier than the second."""
    return x[:: max(1, len(x) // images)][:images]


def binary_images(vae: VAE, mnist: Mnist, images: int) -> dict:
    """The objective of 2d, a bound on log p(b) for b ~ p(B|x); a tighter bound; and the objective's ceiling."""
    p_b = Bernoulli(mnist.test.x, validate_args=False)
    b = spread(p_b.sample(), images)
    weights = ev.log_weights(vae, b, vae.q_z(b), SAMPLES[-1], ev.own_score(vae.likelihood))
    bounds = [{"samples": s, **ev.mean_and_se(ev.importance_bound(weights, s))} for s in SAMPLES]
    objective = ev.elbo_by(vae, mnist.test.x, ev.own_score(vae.likelihood))
    ceiling = -p_b.entropy().sum(dim=(1, 2, 3))
    return {
        "objective": ev.mean_and_se(objective),
        "importance_weighted": bounds,
        "ceiling": ev.mean_and_se(ceiling),
    }


def latents(vae: VAE, mnist: Mnist) -> dict:
    """What the latents hold: the error of mean reconstructions, labels of neighbours, and how many are in use."""
    u, u_test = ev.encode(vae, mnist.train.x), ev.encode(vae, mnist.test.x)
    x_mean = torch.cat([vae.likelihood.mean(vae.p_x(part)) for part in u_test.split(500)])
    return {
        "squared_error": ev.mean_and_se(((mnist.test.x - x_mean) ** 2).sum(dim=(1, 2, 3))),
        "neighbour_accuracy": ev.neighbour_accuracy(u, mnist.train.y, u_test, mnist.test.y),
        "active_latents": int((u.var(dim=0) > 0.01).sum()),
    }


def draw(results: dict, name: str, runs: list[str]) -> None:
    """Bits per dimension of all models, and how the importance-weighted bounds settle."""
    models = {
        name.capitalize(): scores["grey_levels"]
        for name, scores in results["models"].items()
        if "grey_levels" in scores
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 2.6))
    left.barh(list(models), [scores["elbo"]["mean"] for scores in models.values()], color=COLOURS[1 : len(models) + 1])
    for row, scores in enumerate(models.values()):
        left.text(0.03, row, f"{scores['elbo']['mean']:.3f}", va="center", color="white")
    left.axvline(results["baseline"]["mean"], color="black", linestyle=":", label="no latents")
    left.set(xlabel="bits per dimension by the ELBO, test images")
    left.invert_yaxis()
    left.legend()
    for colour, (likelihood, scores) in zip(COLOURS[1:], models.items(), strict=False):
        bounds = scores["importance_weighted"]
        gain = [bound["mean"] - bounds[0]["mean"] for bound in bounds]
        right.plot([bound["samples"] for bound in bounds], gain, marker="o", ms=3, color=colour, label=likelihood)
    right.set(xscale="log", xlabel="importance samples", ylabel="change in bits per dimension")
    right.legend()
    save_figure(figure, name, *runs)


if __name__ == "__main__":
    cli.main(main)
