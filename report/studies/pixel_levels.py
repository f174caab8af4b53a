"""Which p(X|z) knows how grey a pixel is (Task 2e)? Its predictions of single pixels against what the pixels are.

For each model z ~ q(Z|x) of each test image, and P(grey level) of each pixel, given z, and, where the model has them,
the earlier pixels. Writes report/results/pixel-levels.json: shares of kinds of pixels among those of training images;
and the calibration, which is the mean distance of predicted and observed probability over ten bins of predictions, for
black and for ink. Writes also a figure of the predictions for three pixels of one image: black, edge and ink.
"""

import sys
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.config import ON_GREY_LEVELS
from common.evaluation import grey_mass
from common.figures import COLOURS, GREY, legend_below, save_figure
from common.grey_levels import LEVELS, level_of
from common.vae import VAE, Score

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

INK = range(252, LEVELS)  # the saturated levels
BINS, BATCH, RESAMPLED = 10, 250, 100
LINES = [COLOURS[i] for i in (1, 2, 3, 6, 7, 8)]  # of the models
IMAGE, DRAWS = 0, 20  # of the figure: the test image, and the draws of z over which predictions are averaged
CROP = slice(12, 22), slice(10, 20)  # rows and columns that are shown of it
ROW = 17
PIXELS = {  # of that row, by column: name, colour of the frame, the lowest and the highest level to show
    14: ("black", COLOURS[9], 0, 20),
    15: ("edge", COLOURS[4], 0, LEVELS - 1),
    16: ("ink", COLOURS[5], 240, LEVELS - 1),
}


def main() -> None:
    options, mnist, source, device = cli.with_data(__doc__, images=(cli.number(2), 1000, "test images to measure"))
    x, shown = mnist.test.spread(options.images).x, mnist.test.x[IMAGE : IMAGE + 1]
    results = {"images": len(x), "bins": BINS, "draws": DRAWS, "shares": shares(mnist.train.x), "models": {}}
    predicted = {}
    for config, vae in source.models(ON_GREY_LEVELS, device):
        mass = grey_mass(vae.likelihood if vae.likelihood.independent else vae.likelihood.pixel, mnist.train.x)
        p_black, p_ink = zip(*(predict(vae, mass, part, ([0], INK)) for part in x.split(BATCH)), strict=True)
        results["models"][config.run] = {
            "black": calibration(torch.cat(p_black), level_of(x) == 0),
            "ink": calibration(torch.cat(p_ink), level_of(x) >= INK[0]),
        }
        every = predict(vae, mass, shown.expand(DRAWS, -1, -1, -1), [[level] for level in range(LEVELS)])
        predicted[config.likelihood] = torch.stack(every).mean(dim=1)[:, 0]  # (256, 28, 28)
    source.save("pixel-levels", results)
    save_figure(figure_of(shown[0, 0], predicted), "pixel-levels", source)


def shares(x: Tensor) -> dict[str, float]:
    """Of pixels: the black ones, and of the others the saturated ones below white."""
    level = level_of(x)
    black, saturated = (part.double().mean().item() for part in (level == 0, (level >= INK[0]) & (level < INK[-1])))
    return {"black": black, "saturated": saturated / (1 - black)}


def predict(vae: VAE, mass: Score, x: Tensor, sets: Iterable[Iterable[int]]) -> list[Tensor]:
    """The probability of each set of levels at each pixel of x (B, 1, 28, 28), by the mass of a single pixel, given
    z ~ q(Z|x), and given the earlier pixels of x where the model's pixels depend on them."""
    p_x = vae.p_x(vae.q_z(x).sample())
    p_x = p_x if vae.likelihood.independent else p_x.given(x)
    return [sum(mass(p_x, torch.full_like(x, v / (LEVELS - 1))).exp() for v in levels) for levels in sets]


def calibration(predicted: Tensor, true: Tensor) -> dict[str, float]:
    """Distance of mean prediction and share of true (N, 1, 28, 28), in the mean over bins of predictions; its error is
    the spread over resampled images."""
    n = len(true)
    bins = (predicted * BINS).long().clamp(0, BINS - 1) + BINS * torch.arange(n, device=true.device).view(-1, 1, 1, 1)
    pixels = bins.flatten().bincount(minlength=n * BINS).view(n, BINS)
    excess = bins.flatten().bincount((predicted.double() - true.double()).flatten(), n * BINS).view(n, BINS)
    chosen = [torch.arange(n), *torch.randint(n, (RESAMPLED, n), device=true.device)]
    distances = [(excess[rows].sum(dim=0) / pixels[rows].sum(dim=0)).abs().nanmean() for rows in chosen]  # no 0 / 0
    return {"mean": distances[0].item(), "se": torch.stack(distances[1:]).std().item()}


def figure_of(x: Tensor, predicted: dict[str, Tensor]) -> Figure:
    """x (28, 28), and of each model P(level) at each of its pixels (256, 28, 28)."""
    figure, (left, *panels) = plt.subplots(1, 1 + len(PIXELS), figsize=(7, 2.3), width_ratios=[1, 1.5, 1.5, 1.5])
    rows, columns = CROP
    left.imshow(x[CROP].cpu().numpy(), extent=(columns.start, columns.stop, rows.stop, rows.start), **GREY)
    left.axis("off")
    for axis, (column, (name, colour, lowest, highest)) in zip(panels, PIXELS.items(), strict=True):
        level = int(level_of(x[ROW, column]))
        left.add_patch(plt.Rectangle((column, ROW), 1, 1, fill=False, color=colour, lw=2))
        for style, (model, levels) in zip(cycle(LINES), predicted.items()):
            probability = levels[:, ROW, column].cpu().numpy()
            axis.plot(probability, "-o", color=style, lw=1, ms=3.5, markevery=[level], label=model.capitalize())
        axis.axvline(level, color="black", linestyle=":", lw=1, label="true level")
        margin = (highest - lowest) / 20  # what a model gives to the first or last level is not on the frame
        axis.set(yscale="log", ylim=(1e-4, 1.2), xlim=(lowest - margin, highest + margin), xlabel="grey level")
        axis.set_title(f"{name}: level {level}", color=colour)
        axis.set_xticks([lowest, highest])
    panels[0].set_ylabel("P(grey level)")
    figure.get_layout_engine().set(wspace=0.08)
    legend_below(figure, panels[0])
    return figure


if __name__ == "__main__":
    cli.main(main)
