"""When does an optimisation of Psi end (Task 4a)? The objective of four images, and what more steps would gain.

Writes report/results/stopping.json and a figure: its averages over windows, where it stops, and the ELBO at Psi* then.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.config import FAVOURITE
from common.evaluation import log_weights, mean_and_se, own_score
from common.figures import COLOURS, save_figure
from common.vae import VAE
from task_4.inference import LEARNING_RATE, PATIENCE, WINDOW, Psi, ascend, generator_of, infer

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from tqdm import trange

SHOWN, LONGER, SAMPLES = 4, 4, 1000  # images in the figure; times as many steps; draws for an ELBO


def main() -> None:
    parser = cli.run_parser(__doc__, FAVOURITE.run)
    parser.add_argument("--images", type=cli.count(SHOWN), default=100, help="validation images to measure (100)")
    options = parser.parse_args()
    mnist, vae, source = cli.load(options)
    x, score = mnist.val.spread(options.images).x, own_score(vae.likelihood)
    found = infer(vae, x, starts=1)[0]
    stop = (found.steps / WINDOW).long()  # windows
    path = followed(vae, x, LONGER * int(stop.max()))
    last = [path[LONGER * end - PATIENCE - 1 : LONGER * end, i].mean(dim=0) for i, end in enumerate(stop.tolist())]
    mean, log_sigma, _ = torch.stack(last).tensor_split([vae.latent_dim, 2 * vae.latent_dim], dim=1)
    early, late = (
        log_weights(vae, x, psi.q_z(), SAMPLES, score).mean(dim=0) for psi in (found.psi, Psi(mean, log_sigma))
    )
    results = {
        "images": len(x),
        "longer": LONGER,
        "gain": mean_and_se(late - early),
        "noise": path[-PATIENCE:, :, -1].std(dim=0).mean().item(),  # of a window's average, at the end
    }
    source.save("stopping", results)
    figure, axis = plt.subplots(figsize=(6.5, 2.2))
    for i, colour in zip(torch.arange(SHOWN) * len(x) // SHOWN, COLOURS[1:], strict=False):
        course, end = (path[:, i, -1] - late[i]).cpu(), int(stop[i])
        steps = WINDOW * torch.arange(1, len(course) + 1)
        axis.plot(steps[: LONGER * end], course[: LONGER * end], color=colour, lw=0.8)
        axis.plot(steps[end - 1], (early - late)[i].cpu(), "o", color=colour)
    axis.set(xlabel="step", ylabel="objective − its end / nats", ylim=(-8, 2), xscale="log")
    axis.grid(alpha=0.3)
    save_figure(figure, f"{options.run}-stopping", source)


def followed(vae: VAE, x: Tensor, windows: int) -> Tensor:
    """infer's own first start, never stopped: averages over each window of mean, log sigma and objective,
    (windows, N, 2 K + 1)."""
    start = torch.zeros(len(x), vae.latent_dim, device=x.device)
    psi = Psi(start.clone().requires_grad_(), start.clone().requires_grad_())
    optimiser, generators = torch.optim.Adam(psi, lr=LEARNING_RATE), [generator_of(image, 0, 0) for image in x.cpu()]
    for generator in generators:
        torch.randn(vae.latent_dim, generator=generator)  # the mean that infer draws and does not use for its first
    path = []
    for window in trange(windows, desc="windows"):
        noise = torch.stack([torch.randn(WINDOW, vae.latent_dim, generator=one) for one in generators], dim=1)
        path.append(ascend(vae, x, None, psi, slice(None), optimiser, noise.to(x.device), WINDOW * window) / WINDOW)
    return torch.stack(path)


if __name__ == "__main__":
    cli.main(main)
