"""Figures: image grids in MNIST's own greys, ELBO curves and latent scatters, all in one style."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "agg"  # figures go to files, whatever a notebook or a service has set
from common.errors import say
from common.runs import Source, write

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor
from torchvision.utils import make_grid

# ten colours that stay apart for colour-blind readers in pairs with the markers, a marker for each digit
COLOURS = ["#000000", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8c6d31", "#7f7f7f", "#b8b000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", "h", "p"]
GREY = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}  # 0 is black and 1 is white in every image
VALIDATION = {"color": COLOURS[4], "linestyle": (0, (4, 1.5))}  # dashed: the training curve shows through
matplotlib.rcdefaults()  # not the user's matplotlibrc
plt.style.use(Path(__file__).with_name("style.mplstyle"))


def save_figure(figure: Figure, name: str, source: Source) -> Path:
    """Write report/figures/<name>.png with its source, and say so. A figure of the stand-in is marked as such."""
    if source.dataset != "mnist":
        figure.text(0.5, 0.5, f"{source.dataset}: a stand-in", color="red", ha="center", rotation=30, alpha=0.5)
    path = source.home.figures / f"{name}.png"
    metadata = {"Software": None, "Source": json.dumps(source.stamp())}
    write(path, lambda file: figure.savefig(file, format="png", metadata=metadata))
    plt.close(figure)
    say(f"wrote {path}")
    return path


def image_grid(
    images: Tensor, columns: int, titles: list[str] | None = None, width: float = 6.0, numbered: bool = False
) -> Figure:
    """images (N, 1, 28, 28) row by row, N a multiple of columns; titles, if given, stand over the columns, and the
    numbers of the rows, if wanted, beside them."""
    picture = make_grid(images.cpu(), columns, padding=2, pad_value=1.0)[0]  # (30 rows + 2, 30 columns + 2)
    height = width * picture.shape[0] / picture.shape[1] + 0.25 * bool(titles)
    figure, axis = plt.subplots(figsize=(width, height))
    axis.imshow(picture.numpy(), **GREY)
    axis.spines[:].set_visible(False)
    rows = range(len(images) // columns) if numbered else []
    axis.set_xticks([30 * column + 15.5 for column in range(columns)] if titles else [], titles or [], fontsize=9)
    axis.set_yticks([30 * row + 15.5 for row in rows], [row + 1 for row in rows], fontsize=9)
    axis.tick_params(top=False, bottom=False, left=False, labeltop=True, labelbottom=False, pad=1)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01)
    return figure


def columns_grid(columns: list[Tensor], titles: list[str], width: float = 6.0, numbered: bool = False) -> Figure:
    """A row has the i-th image of each of columns (N, 1, 28, 28), or of several i where there are more titles."""
    return image_grid(torch.stack(columns, dim=1).flatten(0, 1), len(titles), titles, width, numbered)


def pairs_grid(x: Tensor, x_new: Tensor, name: str = "$x'$") -> Figure:
    """32 images, each with its reconstruction (name) at its right, in 8 rows of 4 pairs; both (32, 1, 28, 28)."""
    figure = columns_grid([x, x_new], ["$x$", name] * 4, width=4.2)
    figure.axes[0].tick_params(labelsize=13)  # readable on half a page
    figure.axes[0].set_anchor("S")  # so that its images stand level with those of a grid beside it
    return figure


def elbo_curves(results: dict[str, Any], name: str = "ELBO") -> Figure:
    """Training and validation ELBO of a finished run (report/results/<run>.json) by epoch: all epochs, and those after
    the steep beginning, enlarged."""
    history, best = results["history"], results["best_epoch"]
    rates = [row["learning_rate"] for row in history]
    drops = [epoch for epoch in range(1, len(rates) - 1) if rates[epoch + 1] != rates[epoch]]
    late = max(1, len(history) // 6)
    figure, axes = plt.subplots(1, 2, figsize=(5.5, 2.28))
    for axis, rows, title in ((axes[0], history, "all epochs"), (axes[1], history[late:], f"from epoch {late}")):
        for epoch in drops:  # wide, to be seen under the line of the best epoch, too
            axis.axvline(epoch, color="0.75", lw=2.5, label="learning rate falls" if epoch == drops[0] else None)
        for part, style, text in (("train", {"color": COLOURS[1]}, "training"), ("val", VALIDATION, "validation")):
            label = f"{text} ({results['images'][part]:,})"
            axis.plot([row["epoch"] for row in rows], [row[part]["elbo"] for row in rows], label=label, **style)
        axis.axvline(best, color="black", linestyle=":", label=f"best epoch: {best}")
        axis.set(xlabel="epoch", ylabel=f"{name} / nats", title=title)
        axis.grid(alpha=0.3)
    legend_below(figure, axes[0])
    return figure


def legend_below(figure: Figure, axis: Axes) -> None:
    """What axis has labels for, in one row under the whole figure, where it covers nothing."""
    lines, labels = axis.get_legend_handles_labels()
    place = {"loc": "outside lower center", "ncols": len(lines)}
    figure.legend(lines, labels, **place, frameon=False, columnspacing=1.2, handlelength=1.5, markerscale=1.5)


def latent_scatter(axis: Axes, points: Tensor, labels: Tensor, named: Iterable[int] = range(10)) -> None:
    """points (N, 2), a colour and marker for each digit, and those of named themselves at the points' median."""
    points, labels = points.cpu(), labels.cpu()
    for digit, colour in enumerate(COLOURS):
        chosen = points[labels == digit]
        style = {"color": colour, "marker": MARKERS[digit], "edgecolor": "white", "linewidth": 0.3}
        axis.scatter(*chosen.T, s=12, alpha=0.6, label=str(digit), **style)
        if len(chosen) and digit in named:
            outline = [withStroke(linewidth=3, foreground="white")]
            text = {"color": colour, "fontsize": 11, "fontweight": "bold", "path_effects": outline}
            place = {"ha": "center", "va": "center", "zorder": 3, "annotation_clip": True}
            axis.annotate(str(digit), chosen.median(dim=0).values, **text, **place)
