"""How good are completions (Task 4b)? Scores of right halves, on images spread over the test set.

Cross-entropy of x_R, squared error beside simple guesses, labels by a classifier. Writes
report/results/completions-<run>.json and a figure of the images that score worst.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import math

from common import cli
from common.config import FAVOURITE
from common.evaluation import importance_bound, log_weights, mean_and_se, mean_images, own_score, sample_mixture
from common.figures import columns_grid, save_figure
from common.mnist import Split
from common.runs import Source
from common.vae import LEFT, VAE
from report.studies.classifier import label_probabilities, load_classifier
from task_4.complete import TITLES
from task_4.inference import Inferred, Psi, infer

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal
from tqdm import tqdm

ROWS, OPTIMISATIONS = 8, 4  # of the figure; kept optimisations for each image
DRAWS = 500  # z of each optimisation
BLOCK = 100  # images that are optimised together


def main() -> None:
    parser = cli.run_parser(__doc__, FAVOURITE.run)
    parser.add_argument("--images", type=cli.count(ROWS), default=200, help="test images to score (200)")
    options = parser.parse_args()
    mnist, vae, source = cli.load(options)
    test, left = mnist.test.spread(options.images), LEFT.to(vae.zeros.device)
    blocks = [infer(vae, x, left, keep=OPTIMISATIONS) for x in tqdm(test.x.split(BLOCK), desc="blocks of images")]
    with torch.no_grad():
        nats, weights, mean_image = predict(vae, test.x, [[f[i] for f in joined(blocks)] for i in range(len(test.x))])
        z = [torch.cat([block[rank].psi.q_z().sample() for block in blocks]) for rank in range(OPTIMISATIONS)]
        completed = torch.where(left, test.x, mean_images(vae, z[0]))
    weighted = -(weights.log_softmax(dim=1) - nats).logsumexp(dim=1)
    x_left = torch.where(left, test.x, 0.0)
    nearest = torch.cdist(x_left.flatten(1), torch.where(left, mnist.train.x, 0.0).flatten(1)).argmin(dim=1)
    guesses = {
        "black": torch.zeros_like(test.x),
        "training_mean": mnist.train.x.mean(0).expand_as(test.x),
        "left_neighbour": torch.where(left, test.x, mnist.train.x[nearest]),
        "completion": completed,
        "mean_completion": mean_image,
    }
    results = {
        "images": len(test.x),
        "draws": nats.shape[1],
        "cross_entropy_right": {
            "mixture": mean_and_se(-importance_bound(-nats.T, nats.shape[1])),
            "importance_weighted": mean_and_se(weighted),
        },
        "conditional_nats_right": mean_and_se(conditional_nats(vae, test.x, weights)),
        "squared_error_right": {
            name: mean_and_se(torch.where(left, 0.0, test.x - guess).square().sum(dim=(1, 2, 3)))
            for name, guess in guesses.items()
        },
        "label_accuracy": accuracies(source, test, completed, guesses["left_neighbour"]),
        "capped": int(sum(found.capped.sum() for block in blocks for found in block)),
        "optimisations": OPTIMISATIONS * len(test.x),
    }
    source.save(f"completions-{options.run}", results)
    rows = weighted.argsort(descending=True)[:ROWS]
    with torch.no_grad():
        new = [torch.where(left, test.x[rows], vae.likelihood.show(vae.p_x(part[rows]))) for part in z]
    figure = columns_grid([test.x[rows], x_left[rows], *new], TITLES, width=3.6)
    save_figure(figure, f"{options.run}-worst-completions", source)


def joined(blocks: list[list[Inferred]]) -> list[list[Psi]]:
    """For each rank the Psi* of all images, one by one."""
    ranks = []
    for rank in range(OPTIMISATIONS):
        parts = [block[rank].psi for block in blocks]
        ranks.append([Psi(*row) for row in zip(*(torch.cat(part) for part in zip(*parts, strict=True)), strict=True)])
    return ranks


def predict(vae: VAE, x: Tensor, found: list[list[Psi]], draws: int = DRAWS) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of x_R for each image of x (N, 1, 28, 28), M = draws for each Psi* found for it, each (K,).

    Returns the soft cross-entropy of x_R under each draw, in nats, (N, M); the logarithms of the draws' importance
    weights p(x_L|z) p(z) / q(z), where q is the mixture of all q(Z|Psi*), (N, M); and the mean image over the draws.
    """
    nats, weights, images, left = [], [], [], LEFT.to(x.device)
    for i in range(len(x)):
        psi = Psi(*(torch.stack(part) for part in zip(*found[i], strict=True)))  # (optimisations, K)
        z, log_q = sample_mixture(psi.q_z(), draws)  # (M, K), (M,)
        p_x = vae.p_x(z)
        target = x[i : i + 1].expand(len(z), -1, -1, -1)
        log_left = torch.where(left, vae.likelihood.log_prob(p_x, target), 0.0).sum(dim=(1, 2, 3))
        mean = vae.likelihood.mean(p_x)
        soft = Bernoulli(mean.clamp(1e-4, 1 - 1e-4)).log_prob(target)
        nats.append(-torch.where(left, 0.0, soft).sum(dim=(1, 2, 3)))
        weights.append(log_left + vae.p_z.log_prob(z).sum(dim=1) - log_q)
        images.append(mean.mean(dim=0))
    return torch.stack(nats), torch.stack(weights), torch.stack(images)


def conditional_nats(vae: VAE, x: Tensor, weights: Tensor) -> Tensor:
    """-log p(x_R|x_L) = log p(x_L) - log p(x), (N,); weights (N, M) of predict for x_L, a q that has seen x for x."""
    samples, score = weights.shape[1], own_score(vae.likelihood)
    parts = [infer(vae, part)[0].psi for part in x.split(BLOCK)]
    q_x: Normal = Psi(*(torch.cat(part) for part in zip(*parts, strict=True))).q_z()
    log_p = importance_bound(log_weights(vae, x, q_x, samples, score), samples)
    return weights.logsumexp(dim=1) - math.log(samples) - log_p


def accuracies(source: Source, test: Split, completed: Tensor, neighbour: Tensor) -> dict[str, dict[str, float]]:
    """How many images a classifier gives the right label."""
    x_left = torch.where(LEFT.to(test.x.device), test.x, 0.0)
    judged = {"original": test.x, "completion": completed, "left_neighbour": neighbour, "left_half_classifier": x_left}
    rows = {}
    for name, images in judged.items():
        net = load_classifier(source, test.x.device, "classifier-left" if images is x_left else "classifier")
        rows[name] = mean_and_se((label_probabilities(net, images).argmax(dim=1) == test.y).double())
    return rows


if __name__ == "__main__":
    cli.main(main)
