"""Task 3c: from one test image to another of a different digit, through the latent space.

Writes the figure and report/results/task_3c-<run>.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from common import cli
from common.classifier import label_probabilities, load_classifier
from common.evaluation import mean_and_se
from common.figures import columns_grid, save_figure
from common.mnist import Split
from common.runs import save_results
from common.vae import VAE

ROWS, BETWEEN = 8, 9  # rows of the figure; k images between x and x'


@torch.no_grad()
def main() -> None:
    options = cli.run_parser(__doc__, "inflated").parse_args()
    mnist, vae, run = cli.load(options)
    first, second = different_pairs(mnist.test.y, ROWS)
    x, x_prime = mnist.test.x[first], mnist.test.x[second]  # 1. two images, y != y'
    z, z_prime = vae.q_z(x).sample(), vae.q_z(x_prime).sample()  # 2. z ~ q(Z|x), z' ~ q(Z|x'), once a row
    columns = [x]
    for lam in torch.linspace(1, 0, BETWEEN):
        z_lam = lam * z + (1 - lam) * z_prime  # 3. the linear interpolation
        columns.append(vae.images(z_lam))  # 4. x_lam ~ p(X|z_lam)
    columns.append(x_prime)
    titles = ["x", "λ = 1", *(f"{lam:.3g}" for lam in torch.linspace(1, 0, BETWEEN)[1:]), "x'"]
    save_figure(columns_grid(columns, titles), f"{run}-interpolation", run)
    classifier = load_classifier(cli.name_for(mnist, "classifier"), x.device)
    save_results(cli.name_for(mnist, f"task_3c-{options.run}"), midpoints(vae, mnist.test, classifier), run)


def different_pairs(y: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Indices of the first images that are followed by one with another label: no image is in two pairs."""
    pairs = torch.arange(len(y) // 2 * 2).view(-1, 2)
    pairs = pairs[(y[pairs[:, 0]] != y[pairs[:, 1]]).cpu()][:rows]
    return pairs[:, 0], pairs[:, 1]


def spherical(z: Tensor, z_prime: Tensor) -> Tensor:
    """Halfway from z' to z along the arc between them, (N, K)."""
    cosine = torch.cosine_similarity(z, z_prime, dim=1).clamp(-1 + 1e-6, 1 - 1e-6)  # for parallel ones: the line
    angle = torch.arccos(cosine).unsqueeze(1)
    return torch.sin(angle / 2) / torch.sin(angle) * (z + z_prime)


def midpoints(vae: VAE, test: Split, classifier: torch.nn.Module) -> dict:
    """Halfway between 1000 pairs, on the line and on the arc: log p(z), and how sure the classifier is of E[X|z]."""
    first, second = different_pairs(test.y, 1000)
    z, z_prime = vae.q_z(test.x[first]).sample(), vae.q_z(test.x[second]).sample()
    places = {
        "end": z,
        "linear": (z + z_prime) / 2,
        "spherical": spherical(z, z_prime),
        "prior": vae.p_z.sample((1000,)),
    }
    results = {"pairs": len(first)}
    for name, place in places.items():
        sure = label_probabilities(classifier, vae.likelihood.mean(vae.p_x(place))).amax(dim=1)
        density = vae.p_z.log_prob(place).sum(dim=1)
        results[name] = {"log_p_z": mean_and_se(density), "classifier_confidence": mean_and_se(sure)}
    return results


if __name__ == "__main__":
    cli.main(main)
