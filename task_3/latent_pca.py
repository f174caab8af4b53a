"""Task 3b: mu(x_i) of the first 1000 test images for K >= 10, on their first two principal components.

With the Bernoulli model of Task 2d.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import Config
from common.figures import COLOURS, latent_scatter, save_figure

import matplotlib.pyplot as plt
import torch
from sklearn.decomposition import PCA


def main() -> None:
    options, mnist, vae, source = cli.with_model(__doc__, Config("bernoulli").run)
    cli.require(vae.latent_dim >= 10, options.run, "K >= 10")
    U = vae.q_z(mnist.test.x[:1000]).mean.cpu().numpy()  # (1000, K): row i is mu(x_i)
    pca = PCA().fit(U)  # subtracts the mean of each column
    projected = torch.from_numpy(pca.transform(U)[:, :2])  # (1000, 2)
    share = pca.explained_variance_ratio_

    figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 3.8), width_ratios=[4.5, 1])
    latent_scatter(left, projected, mnist.test.y[:1000])
    left.legend(title="digit", loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.1, markerscale=1.5)
    left.set(xlabel=f"component 1 ({share[0]:.1%} of variance)", ylabel=f"component 2 ({share[1]:.1%} of variance)")
    right.bar(range(1, len(share) + 1), 100 * share, color=COLOURS[1])
    right.set(xlabel="component", title="% of variance", xlim=(0.2, len(share) + 0.8))
    save_figure(figure, f"{options.run}-latent-pca", source)


if __name__ == "__main__":
    cli.main(main)
