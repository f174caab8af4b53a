"""What do the latents hold? Labels of neighbours, how many are in use, and errors of reconstructions.

Writes report/results/latents.json: for each model, for the plane of Task 3a, and for two components as in Task 3b.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.config import CHOICES, TASK_3
from common.evaluation import decoded, mean_and_se
from common.mnist import Mnist

import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

NEIGHBOURS = 15
ACTIVE = 0.01  # a latent is in use if the variance of mu_k(x) over the training images is above this


def main() -> None:
    _, mnist, source, device = cli.with_data(__doc__)
    results = {"neighbours": NEIGHBOURS, "runs": {}}
    for config, vae in source.models([*CHOICES, TASK_3], device):
        u, u_test = vae.q_z(mnist.train.x).mean, vae.q_z(mnist.test.x).mean
        pca = PCA().fit(u_test[:1000].cpu().numpy())  # as in Task 3b
        two, two_test = (torch.from_numpy(pca.transform(part.cpu().numpy())[:, :2]) for part in (u, u_test))
        results["runs"][config.run] = {
            "active_latents": int((u.var(dim=0) > ACTIVE).sum()),
            "neighbour_accuracy": neighbour_accuracy(u, u_test, mnist),
            "neighbour_accuracy_two_components": neighbour_accuracy(two, two_test, mnist),
            "explained_variance_ratio": pca.explained_variance_ratio_.tolist(),
        }
        if vae.likelihood.independent:  # else there is no mean image
            error = (mnist.test.x - decoded(vae, u_test, vae.likelihood.mean)).square().sum(dim=(1, 2, 3))
            results["runs"][config.run]["squared_error"] = mean_and_se(error)
    source.save("latents", results)


def neighbour_accuracy(u: Tensor, u_test: Tensor, mnist: Mnist) -> float:
    """Share of u_test (M, K) whose label is that of most of their nearest neighbours in u (N, K)."""
    classifier = KNeighborsClassifier(NEIGHBOURS, algorithm="brute").fit(u.cpu().numpy(), mnist.train.y.cpu().numpy())
    return float(classifier.score(u_test.cpu().numpy(), mnist.test.y.cpu().numpy()))


if __name__ == "__main__":
    cli.main(main)
