"""How far are q(Z|Psi*) and q(Z|x) from the exact posterior? For K = 2 it can be had on a grid.

log p(x) = ELBO of q(Z|x) + amortisation gap + remaining gap, where the first gap ends at the ELBO of q(Z|Psi*) and the
second is KL(q(Z|Psi*) || p(Z|x)). Writes report/results/posterior.json and a figure of a few images.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import math

from common import cli
from common.config import TASK_3
from common.evaluation import importance_bound, mean_and_se, sample_mixture
from common.figures import COLOURS, GREY, save_figure
from common.vae import VAE
from task_4.inference import infer

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from tqdm import tqdm

COARSE, RANGE = 0.1, 5.0  # the first grid: its step, and how far it reaches from 0
FINER, KEEP = 5, (40.0, 20.0)  # each refinement cuts cells in 5x5, and keeps those so many nats below the best
MOST = 1000  # with more cells to refine the posterior is so broad that the grid is fine enough for it
STARTS, KEPT = 48, 12  # optimisations of each Psi, and those of them that go on
NODES = 24  # of the Gauss-Hermite rule in each direction
SAMPLES, WIDER = 200, 3.0  # for the importance-weighted check: draws of each component; their widths


@torch.no_grad()
def main() -> None:
    parser = cli.run_parser(__doc__, TASK_3.run)
    parser.add_argument("--images", type=cli.count(8), default=40, help="test images to measure (40)")
    options = parser.parse_args()
    mnist, vae, source = cli.load(options)
    cli.check_latents(vae, options.run, at_least=2, at_most=2)
    x = mnist.test.spread(options.images).x
    with torch.enable_grad():
        found = infer(vae, x, starts=STARTS, keep=KEPT)  # modes lie far apart: many starts, the best go on
    q_psi, q_x = found[0].psi.q_z(), vae.q_z(x)
    log_p = torch.stack([exact_log_p(vae, image) for image in tqdm(x, desc="quadrature", unit="image")])
    elbo_psi, elbo_x = exact_elbo(vae, x, q_psi), exact_elbo(vae, x, q_x)
    gap, rest = elbo_psi - elbo_x, log_p - elbo_psi
    weights = mixture_weights(vae, x, [q_x, *(part.psi.q_z() for part in found)])
    sampled = importance_bound(weights, len(weights))
    error = (weights - sampled).exp().std(0) / len(weights) ** 0.5
    results = {
        "images": len(x),
        "starts": STARTS,
        "kept": KEPT,
        "log_p": mean_and_se(log_p),
        "elbo_encoder": mean_and_se(elbo_x),
        "amortisation_gap": mean_and_se(gap),
        "median_amortisation_gap": gap.median().item(),
        "encoder_better": int((gap < 0).sum()),
        "remaining_gap": mean_and_se(rest),
        "smallest_remaining_gap": rest.min().item(),
        "median_remaining_gap": rest.median().item(),
        "largest_remaining_gaps": rest.sort(descending=True).values[:3].tolist(),
        "importance_weighted_minus_exact": mean_and_se(sampled - log_p),
        "importance_weighted_error": error.square().mean().div(len(x)).sqrt().item(),  # of that mean, by sampling alone
        "share_within_two_errors": ((sampled - log_p).abs() < 2 * error + 1e-3).double().mean().item(),
    }
    source.save("posterior", results)
    order = gap.argsort().tolist()
    chosen = [*order[len(order) // 2 :][:2], *order[-2:]]  # two of median amortisation gap, and the two largest
    figure, axes = plt.subplots(2, 4, figsize=(6.5, 3.4), height_ratios=[1, 2.2])
    for (top, bottom), i in zip(axes.T, chosen, strict=True):
        top.imshow(x[i, 0].cpu().numpy(), **GREY)
        top.axis("off")
        draw_posterior(bottom, vae, x[i], [(q_psi, i, COLOURS[4], "q(Z|$\\Psi_*$)"), (q_x, i, COLOURS[5], "q(Z|x)")])
    axes[1, 0].set_ylabel("$z_2$")
    axes[1, 2].legend(loc="lower left", fontsize=6)
    save_figure(figure, f"{options.run}-posterior", source)


def log_joint(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z) + log p(z) of one image x (1, 28, 28) for z (M, 2), summed in double precision: (M,)."""
    parts = []
    for part in z.split(2000):
        log_p = vae.likelihood.log_prob(vae.p_x(part), x.expand(len(part), -1, -1, -1)).double().sum(dim=(1, 2, 3))
        parts.append(log_p + vae.p_z.log_prob(part).double().sum(dim=1))
    return torch.cat(parts)


def exact_log_p(vae: VAE, x: Tensor) -> Tensor:
    """log p(x) by the midpoint rule on a grid that is refined where the posterior is."""
    axis = torch.arange(-RANGE, RANGE + COARSE / 2, COARSE, device=x.device)
    z, step = torch.cartesian_prod(axis, axis), COARSE
    values = log_joint(vae, x, z)
    for keep in KEEP:
        kept = z[values > values.max() - keep]
        if len(kept) > MOST:
            break
        offsets = (torch.arange(FINER, device=x.device) - FINER // 2) * step / FINER
        z = (kept.unsqueeze(1) + torch.cartesian_prod(offsets, offsets)).flatten(0, 1)
        step /= FINER
        values = log_joint(vae, x, z)
    return values.logsumexp(0) + 2 * math.log(step)


def mixture_weights(vae: VAE, x: Tensor, candidates: list[Normal]) -> Tensor:
    """log [p(x|z) p(z) / q(z)] for each image of x (N, 1, 28, 28), (M, N), where q is the mixture of the candidates,
    each of batch shape (N, 2), and of the same WIDER times as wide: no mode is lost that one of them has seen."""
    columns = []
    for i in range(len(x)):
        mean = torch.stack([q.mean[i] for q in candidates]).repeat(2, 1)  # (2 candidates, 2)
        sigma = torch.stack([q.stddev[i] for q in candidates])
        z, log_q = sample_mixture(Normal(mean, torch.cat([sigma, WIDER * sigma])), SAMPLES)
        columns.append(log_joint(vae, x[i], z) - log_q)
    return torch.stack(columns, dim=1)


def exact_elbo(vae: VAE, x: Tensor, q_z: Normal) -> Tensor:
    """E_q[log p(x|z)] - KL(q || p(Z)) of each image by Gauss-Hermite quadrature: (N,)."""
    nodes, weights = (torch.from_numpy(part).float().to(x.device) for part in np.polynomial.hermite_e.hermegauss(NODES))
    noise, weight = torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(dim=1)
    expected = []
    for i in range(len(x)):
        z = q_z.mean[i] + q_z.stddev[i] * noise
        log_p = log_joint(vae, x[i], z) - vae.p_z.log_prob(z).sum(dim=1)
        expected.append((weight * log_p).sum() / weight.sum())
    return torch.stack(expected) - kl_divergence(q_z, vae.p_z).sum(dim=1)


def draw_posterior(axis: Axes, vae: VAE, x: Tensor, approximations: list[tuple[Normal, int, str, str]]) -> None:
    """The exact posterior as shades, its maximum as a cross, and ellipses at one and two standard deviations of the
    approximations."""
    low = torch.stack([q.mean[i] - 3 * q.stddev[i] for q, i, _, _ in approximations]).amin(dim=0)
    high = torch.stack([q.mean[i] + 3 * q.stddev[i] for q, i, _, _ in approximations]).amax(dim=0)
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    first, second = (torch.linspace(low[d].item(), high[d].item(), 200, device=x.device) for d in range(2))
    z = torch.cartesian_prod(first, second)
    density = log_joint(vae, x, z)
    mode, density = z[density.argmax()].cpu(), density.view(200, 200)
    density = (density - density.max()).exp().T.cpu().numpy()
    axis.pcolormesh(
        first.cpu().numpy(), second.cpu().numpy(), density, cmap="Greys", shading="nearest", rasterized=True
    )
    angle = torch.linspace(0, 2 * math.pi, 100)
    circle = torch.stack([angle.cos(), angle.sin()])
    for q, i, colour, label in approximations:
        for radius in (1, 2):
            ellipse = q.mean[i].cpu().unsqueeze(1) + radius * q.stddev[i].cpu().unsqueeze(1) * circle
            axis.plot(*ellipse.numpy(), color=colour, lw=1, label=label if radius == 1 else None)
    axis.plot(*mode.numpy(), "+", color=COLOURS[3], ms=8, label="maximum")
    axis.set_xlabel("$z_1$")
    axis.tick_params(labelsize=6)


if __name__ == "__main__":
    cli.main(main)
