"""Figures: image grids in MNIST's own greys, ELBO curves and latent scatters, all in one style."""

import json
import os
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from common.mnist import ROOT
from common.runs import sources

FIGURES = ROOT / "report" / "figures"
STYLE = Path(__file__).with_name("style.mplstyle")
# ten colours that stay apart for colour-blind readers in pairs with the markers, a marker for each digit
COLOURS = ["#000000", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8c6d31", "#7f7f7f", "#b8b000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p"]
plt.style.use(STYLE)


def save_figure(figure: Figure, name: str, *runs: str) -> Path:
    """Write report/figures/<name>.png and say so. A figure of the stand-in data is marked as such.

    The file carries the fingerprints of the runs that it shows, by which the report finds outdated figures.
    """
    if name.startswith("digits"):
        figure.text(0.5, 0.5, "digits stand-in, not MNIST", color="red", ha="center", rotation=30, alpha=0.5)
    path = FIGURES / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    metadata = {"Software": None, "Source": json.dumps(sources(runs))}
    figure.savefig(temporary, format="png", metadata=metadata)
    os.replace(temporary, path)
    plt.close(figure)
    print(f"wrote {path}")
    return path


def image_grid(images: Tensor, columns: int, titles: list[str] | None = None, width: float = 6.0) -> Figure:
    """images (N, 1, 28, 28) row by row, N a multiple of columns; titles, if given, stand over the columns.

    Grey values are shown as they are: 0 is black and 1 is white in every image.
    """
    rows = len(images) // columns
    height = width * rows / columns + 0.25 * bool(titles)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for image, axis in zip(images, axes.flat, strict=True):
        axis.imshow(image[0].cpu().numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.axis("off")
    for axis, title in zip(axes[0], titles or [], strict=False):
        axis.set_title(title, fontsize=9)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    return figure


def columns_grid(columns: list[Tensor], titles: list[str], width: float = 6.0) -> Figure:
    """Each of columns (N, 1, 28, 28) as a column of image_grid: a row shows what belongs together."""
    return image_grid(torch.stack(columns, dim=1).flatten(0, 1), len(columns), titles, width)


def mosaic(images: Tensor, columns: int) -> Tensor:
    """images (N, 1, 28, 28) put together, row by row, to one picture (28 N / columns, 28 columns)."""
    rows = images.cpu().view(-1, columns, 28, 28)
    return rows.transpose(1, 2).reshape(-1, columns * 28)


def pairs_grid(x: Tensor, x_new: Tensor, name: str = "x'") -> Figure:
    """32 images, each with its reconstruction (name) at its right, in 8 rows of 4 pairs; both (32, 1, 28, 28)."""
    both = [image for pair in zip(x, x_new, strict=True) for image in pair]
    return image_grid(both, columns=8, titles=["x", name] * 4, width=4.2)  # half a page: heads stay readable


def elbo_curves(history: list[dict[str, Any]], best_epoch: int, drops: list[int], name: str = "ELBO") -> Figure:
    """Training and validation ELBO by epoch: all epochs, and those after the steep beginning, enlarged.

    drops: the epochs after which the learning rate fell.
    """
    figure, axes = plt.subplots(1, 2, figsize=(6.5, 2.6))
    late = max(1, len(history) // 6)
    for axis, rows in ((axes[0], history), (axes[1], history[late:])):
        epochs = [row["epoch"] for row in rows]
        axis.plot(epochs, [row["train"]["elbo"] for row in rows], color=COLOURS[1], label="training (50,000 images)")
        axis.plot(epochs, [row["val"]["elbo"] for row in rows], color=COLOURS[4], label="validation (10,000 images)")
        axis.axvline(best_epoch, color="grey", linestyle=":", label=f"best epoch: {best_epoch}")
        for epoch in drops:
            axis.axvline(epoch, color=COLOURS[2], lw=0.8, label="learning rate falls" if epoch == drops[0] else None)
        axis.set(xlabel="epoch", ylabel=f"{name} / nats per image")
        axis.grid(alpha=0.3)
    axes[0].set_title("all epochs")
    axes[1].set_title(f"from epoch {late}")
    axes[0].legend(loc="lower right")  # below the plateau, where no curve is
    return figure


def latent_scatter(axis: Axes, points: Tensor, labels: Tensor) -> None:
    """points (N, 2), one colour and marker for each digit."""
    for digit in range(10):
        chosen = (labels == digit).cpu().numpy()
        style = {"color": COLOURS[digit], "marker": MARKERS[digit], "alpha": 0.7, "lw": 0}
        axis.scatter(*points.cpu().numpy()[chosen].T, s=12, label=str(digit), **style)
    axis.set_aspect("equal")
    axis.legend(title="digit", markerscale=1.5, loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.1)
