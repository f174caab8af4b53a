"""When does an optimisation of Psi end (Task 4)? Its objective by step, and what more steps would gain.

For two models, whole images and left halves. Writes report/results/stopping.json and a figure of four whole images
each: averages over windows, where the rule stops, and the ELBO at Psi* then.
"""

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.config import FAVOURITE, Config
from common.evaluation import log_weights, mean_and_se
from common.figures import COLOURS, save_figure
from common.vae import LEFT, VAE, masked
from task_4.inference import LEARNING_RATE, PATIENCE, WINDOW, Psi, ascend, generator_of, infer

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor
from tqdm import trange

SHOWN, LONGER, SAMPLES = 4, 4, 1000  # images in the figure; times as many steps; draws for an ELBO


class Course(NamedTuple):
    """Of N optimisations: windows until the rule stops; averages over windows of mean, log sigma and objective,
    (windows, N, 2 K + 1), for LONGER times as many; the ELBOs at both ends (N,)."""

    stop: Tensor
    path: Tensor
    early: Tensor
    late: Tensor


def main() -> None:
    images = cli.number(SHOWN), 100, "validation images to measure"
    options, mnist, source, device = cli.with_data(__doc__, images=images)
    x = mnist.val.spread(options.images).x
    results = {"images": len(x), "longer": LONGER, "runs": {}}
    figure, axes = plt.subplots(1, 2, figsize=(6.5, 2.4), sharey=True)
    for axis, config in zip(axes, (FAVOURITE, Config("bernoulli")), strict=True):
        vae, parts = source.vae(config.run, device), {"whole": None, "left": LEFT.to(device)}
        courses = {name: followed(vae, x, mask) for name, mask in parts.items()}
        results["runs"][config.run] = {name: measured(course) for name, course in courses.items()}
        draw(axis, courses["whole"])
        axis.set_title(f"{config.likelihood.capitalize()}, K = {config.latent_dim}")
    source.save("stopping", results)
    axes[0].set_ylabel("ELBO − final ELBO / nats")
    save_figure(figure, "stopping", source)


def followed(vae: VAE, x: Tensor, mask: Tensor | None) -> Course:
    """infer's own first start for each of x (N, 1, 28, 28), and the same never stopped."""
    found, k = infer(vae, x, mask, starts=1)[0], vae.latent_dim
    stop = (found.steps / WINDOW).long()
    psi = Psi(*(torch.zeros_like(part).requires_grad_() for part in found.psi))
    seen = x if mask is None else torch.where(mask, x, 0.0)
    optimiser, generators = torch.optim.Adam(psi, lr=LEARNING_RATE), [generator_of(image, 0, 0) for image in seen.cpu()]
    for generator in generators:
        torch.randn(k, generator=generator)  # the mean that infer draws and does not use for its first
    path = []
    for window in trange(LONGER * int(stop.max()), desc="windows"):
        noise = torch.stack([torch.randn(WINDOW, k, generator=one) for one in generators], dim=1)
        path.append(ascend(vae, x, mask, psi, slice(None), optimiser, noise.to(x.device), WINDOW * window) / WINDOW)
    path = torch.stack(path)
    last = [path[LONGER * end - PATIENCE - 1 : LONGER * end, i].mean(dim=0) for i, end in enumerate(stop.tolist())]
    mean, log_sigma, _ = torch.stack(last).tensor_split([k, 2 * k], dim=1)
    ends, score = (found.psi, Psi(mean, log_sigma)), masked(vae.likelihood.log_prob, mask)
    early, late = (log_weights(vae, x, psi.q_z(), SAMPLES, score).mean(dim=0) for psi in ends)
    return Course(stop, path, early, late)


def measured(course: Course) -> dict[str, object]:
    return {
        "steps": WINDOW * course.stop.double().mean().item(),
        "gain": mean_and_se(course.late - course.early),
        "noise": course.path[-PATIENCE:, :, -1].std(dim=0).mean().item(),  # of a window's average, at the end
    }


def draw(axis: Axes, course: Course) -> None:
    for i, colour in zip(torch.arange(SHOWN) * len(course.stop) // SHOWN, COLOURS[1:], strict=False):
        values, end = (course.path[:, i, -1] - course.late[i]).cpu(), int(course.stop[i])
        steps = WINDOW * torch.arange(1, len(values) + 1)
        axis.plot(steps[: LONGER * end], values[: LONGER * end], color=colour, lw=0.8)
        axis.plot(steps[end - 1], (course.early - course.late)[i].cpu(), "o", color=colour)
    axis.set(xlabel="step", ylim=(-8, 2), xscale="log")
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    cli.main(main)
