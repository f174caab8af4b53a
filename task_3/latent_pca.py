"""Task 3b: mu(x_i) of the first 1000 test images for K >= 10, on their first two principal components.

Writes the figure and report/results/task_3b-<run>.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.decomposition import PCA

from common import cli
from common.errors import UsageError
from common.evaluation import encode, neighbour_accuracy
from common.figures import COLOURS, latent_scatter, save_figure
from common.runs import save_results


def main() -> None:
    options = cli.run_parser(__doc__, "bernoulli").parse_args()
    mnist, vae, run = cli.load(options)
    if vae.latent_dim < 10:
        raise UsageError(f"run '{run}' has K = {vae.latent_dim}, this figure needs K >= 10: --run bernoulli-k32")
    u_test, u_train = encode(vae, mnist.test.x), encode(vae, mnist.train.x)
    U = u_test[:1000].cpu().numpy()  # (1000, K)
    pca = PCA().fit(U)  # subtracts the mean of each column
    projected = torch.from_numpy(pca.transform(U)[:, :2])  # (1000, 2)
    share = pca.explained_variance_ratio_

    figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 3.4), width_ratios=[2, 1])
    latent_scatter(left, projected, mnist.test.y[:1000])
    left.set(xlabel=f"component 1 ({share[0]:.1%} of variance)", ylabel=f"component 2 ({share[1]:.1%} of variance)")
    right.bar(np.arange(1, len(share) + 1), share, color=COLOURS[1])
    right.set(xlabel="component", ylabel="share of variance", title=f"all K = {len(share)}")
    save_figure(figure, f"{run}-latent-pca", run)

    two, two_train = (torch.from_numpy(pca.transform(u.cpu().numpy())[:, :2]) for u in (u_test, u_train))
    results = {
        "explained_variance_ratio": share.tolist(),
        "neighbour_accuracy_two": neighbour_accuracy(two_train, mnist.train.y, two, mnist.test.y),
        "neighbour_accuracy_all": neighbour_accuracy(u_train, mnist.train.y, u_test, mnist.test.y),
    }
    save_results(cli.name_for(mnist, f"task_3b-{options.run}"), results, run)


if __name__ == "__main__":
    cli.main(main)
