"""Task 4b: the right half of an image from its left half.

Writes a figure of a few images, x | x_L and black | x_L and a sample x'_R, and one with more completions of each.
With --images N it scores N completions instead: report/results/task_4b-<run>.json, and a figure of the worst.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import math

import torch
from torch import Tensor
from torch.distributions import Bernoulli

from common import cli
from common.classifier import label_probabilities, load_classifier
from common.evaluation import importance_bound, log_weights, mean_and_se, own_score, sample_mixture
from common.figures import columns_grid, save_figure
from common.inference import Inferred, Psi, infer, ranked
from common.mnist import Mnist
from common.runs import save_results
from common.vae import VAE

ROWS, DRAWS = 8, 100  # rows of the figures; z of each optimisation for the scores
MORE_DRAWS = 500  # of each, to see what more draws give
SPREAD = 1.7  # a factor on q(Z|Psi*)'s sigma, which is narrower than the posterior's; chosen on validation images
STARTS = range(4)  # separate optimisations of Psi for each image
TITLES = ["$x$", "$x_L$, black", "$x_L, x'_R$", "2nd", "3rd", "4th"]


def main() -> None:
    parser = cli.run_parser(__doc__, "inflated")
    parser.add_argument("--images", type=cli.count(ROWS), help="score the completions of so many test images")
    options = parser.parse_args()
    mnist, vae, run = cli.load(options)
    x = mnist.test.x[: options.images or ROWS]
    left = (torch.arange(28) < 14).expand(1, 1, 28, 28).to(x.device)  # the 14 left columns
    found = ranked([infer(vae, x, left, starts=[start]) for start in STARTS])  # Psi* from x_L alone, the best first
    with torch.no_grad():
        z = [part.psi.q_z().sample() for part in found]  # z ~ q(Z|Psi*)
        completed = [torch.where(left, x, vae.images(part)) for part in z]  # x_L with x'_R ~ p(X_R|z)
    columns = [x, torch.where(left, x, 0.0), *completed]
    first = torch.arange(ROWS)
    if not options.images:
        show(columns[:3], first, run, "completions")
        show(columns, first, run, "more-completions")
    else:
        nats, results = score(mnist, vae, x, left, found, z[0])
        save_results(cli.name_for(mnist, f"task_4b-{options.run}"), results, run)
        show(columns, nats.argsort(descending=True)[:ROWS], run, "worst-completions")


def show(columns: list[Tensor], rows: Tensor, run: str, name: str) -> None:
    columns = [column[rows.to(column.device)] for column in columns]
    save_figure(columns_grid(columns, TITLES[: len(columns)], width=0.6 * len(columns)), f"{run}-{name}", run)


@torch.no_grad()
def predict(
    vae: VAE, x: Tensor, left: Tensor, found: list[Inferred], draws: int = DRAWS, spread: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of x_R for each image x (1, 28, 28), (N, M) in all, M = draws for each of the optimisations.

    spread: a factor on the standard deviations of all q(Z|Psi*).

    Returns the soft cross-entropy of x_R under each draw, in nats, (N, M); the logarithms of the draws' importance
    weights p(x_L|z) p(z) / q(z), where q is the mixture of all q(Z|Psi*), (N, M); and the mean image over the draws.
    """
    nats, weights, images = [], [], []
    for i in range(len(x)):
        psi = Psi(*(torch.stack([part.psi[j][i] for part in found]) for j in range(2)))  # (4, K) each
        q_z = psi._replace(log_sigma=psi.log_sigma + math.log(spread)).q_z()
        z, log_q = sample_mixture(q_z, draws)  # (M, K), (M,)
        p_x = vae.p_x(z)
        target = x[i : i + 1].expand(len(z), -1, -1, -1)
        log_left = torch.where(left, vae.likelihood.log_prob(p_x, target), 0.0).sum(dim=(1, 2, 3))
        mean = vae.likelihood.mean(p_x)
        soft = Bernoulli(mean.clamp(1e-4, 1 - 1e-4), validate_args=False).log_prob(target)
        nats.append(-torch.where(left, 0.0, soft).sum(dim=(1, 2, 3)))
        weights.append(log_left + vae.p_z.log_prob(z).sum(dim=1) - log_q)
        images.append(mean.mean(dim=0))
    return torch.stack(nats), torch.stack(weights), torch.stack(images)


@torch.no_grad()
def score(mnist: Mnist, vae: VAE, x: Tensor, left: Tensor, found: list[Inferred], z: Tensor) -> tuple[Tensor, dict]:
    """The weighted cross-entropy of each x_R, in nats, (N,), and all scores; z (N, K): a draw of the best q(Z|Psi*)."""
    nats, weights, mean_image = predict(vae, x, left, found)
    more, wide = (predict(vae, x, left, found, MORE_DRAWS, spread)[0] for spread in (1.0, SPREAD))
    weighted = -(weights.log_softmax(dim=1) - nats).logsumexp(dim=1)
    completed = torch.where(left, x, torch.cat([vae.likelihood.mean(vae.p_x(part)) for part in z.split(500)]))
    x_left = torch.where(left, x, 0.0)
    nearest = torch.cdist(x_left.flatten(1), torch.where(left, mnist.train.x, 0.0).flatten(1)).argmin(dim=1)
    guesses = {
        "black": torch.zeros_like(x),
        "training_mean": mnist.train.x.mean(0).expand_as(x),
        "left_neighbour": torch.where(left, x, mnist.train.x[nearest]),
        "completion": completed,
        "mean_completion": mean_image,
    }
    judged = {"original": x, "completion": completed, "left_neighbour": guesses["left_neighbour"]}
    return weighted, {
        "images": len(x),
        "draws": nats.shape[1],
        "more_draws": wide.shape[1],
        "spread": SPREAD,
        "cross_entropy_right": {
            "mixture": mean_and_se(mixture_nats(nats)),
            "importance_weighted": mean_and_se(weighted),
            "mixture_more_draws": mean_and_se(mixture_nats(more)),
            "wide_mixture": mean_and_se(mixture_nats(wide)),
        },
        "conditional_nats_right": mean_and_se(conditional_nats(vae, x, weights)),
        "squared_error_right": {
            name: mean_and_se(torch.where(left, 0.0, x - guess).square().sum(dim=(1, 2, 3)))
            for name, guess in guesses.items()
        },
        "label_accuracy": {name: label_accuracy(mnist, "classifier", images) for name, images in judged.items()}
        | {"left_half_classifier": label_accuracy(mnist, "classifier-left", x_left)},
        "steps": mean_and_se(torch.cat([part.steps for part in found])),
        "capped": int(sum(part.capped.sum() for part in found)),
    }


def mixture_nats(nats: Tensor) -> Tensor:
    """-log of the mean over draws, (N, M), of what each gives x_R: (N,)."""
    return -importance_bound(-nats.T, nats.shape[1])


def conditional_nats(vae: VAE, x: Tensor, weights: Tensor) -> Tensor:
    """-log p(x_R|x_L) = log p(x_L) - log p(x), (N,); weights (N, M) of predict for x_L, a q that has seen x for x."""
    samples = weights.shape[1]
    with torch.enable_grad():
        q_x = infer(vae, x, starts=[0]).psi.q_z()
    log_p = importance_bound(log_weights(vae, x, q_x, samples, own_score(vae.likelihood)), samples)
    return importance_bound(weights.T, samples) - log_p


def label_accuracy(mnist: Mnist, name: str, images: Tensor) -> dict[str, float]:
    """How many of images (N, 1, 28, 28), made from the first N test images, a classifier gives the right label."""
    net = load_classifier(cli.name_for(mnist, name), images.device)
    return mean_and_se((label_probabilities(net, images).argmax(dim=1) == mnist.test.y[: len(images)]).double())


if __name__ == "__main__":
    cli.main(main)
