"""How far are q(Z|Psi*) and q(Z|x) from the exact posterior? For K = 2 it can be had on a grid.

log p(x) = ELBO of q(Z|x) + amortisation gap + remaining gap, where the first gap ends at the ELBO of q(Z|Psi*) and the
second is KL(q(Z|Psi*) || p(Z|x)). Psi starts at maxima of the grid, so that its arg max is found. Writes
report/results/posterior-<run>.json and a figure of a few images.
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.annealing import log_joint
from common.config import TASK_3
from common.evaluation import importance_bound, log_weights, mean_and_se
from common.figures import COLOURS, GREY, legend_below, save_figure
from common.likelihoods import BernoulliLikelihood
from common.vae import VAE
from task_4.inference import WINDOW, Psi, ascend

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import max_pool2d, one_hot, softplus
from tqdm import tqdm

STEP, RANGE = 0.03, 7.0  # the plane's grid: its step, and how far it reaches from 0
FINER, NEAR = 5, (15.0, 12.0)  # a refinement cuts cells in 5x5, those so many nats below the best
MOST = 700  # with more cells than this to refine the posterior is so broad that the grid is fine enough for it
MODES = 4  # optimisations of each image, from so many maxima of the grid
RATE, WINDOWS, AVERAGED = 0.03, 12, 6  # their step size at first, their windows, and the last of these, which count
NODES = 20  # of the Gauss-Hermite rule in each direction
CHECKED = 25  # every 25th image again, on a plane of half the step
SAMPLES, WIDER = 200, 3.0  # for importance sampling: draws of each component; their widths
BLOCK = 50  # images whose Psi are optimised together
CLEARLY = 0.05  # nats by which the encoder has to be better to be counted
SHADES = 100  # of the figure: points of the density in each direction


def main() -> None:
    images = cli.number(8, 2000), 1000, "test images to measure"
    step = cli.number(0.02, 0.5, float), STEP, "of the grid"
    options, mnist, vae, source = cli.with_model(__doc__, TASK_3.run, images=images, step=step)
    fits = vae.latent_dim == 2 and isinstance(vae.likelihood, BernoulliLikelihood) and not vae.mixture
    cli.require(fits, options.run, "a Bernoulli model with K = 2 and p(Z) = N(0, I)")
    x = mnist.test.spread(options.images).x
    log_p, starts = plane(vae, x, options.step)
    finer = plane(vae, x[::CHECKED], options.step / 2)[0] - log_p[::CHECKED]
    rows, q_psi = [], []
    for part, mean, log_sigma in zip(*(every.split(BLOCK) for every in (x, *starts)), strict=True):
        found = fitted(vae, part, Psi(mean, log_sigma))
        elbos = torch.stack([exact_elbo(vae, part, q_z) for q_z in found])
        best = elbos.argmax(dim=0).tolist()  # by quadrature, which knows better than averages of single samples
        q_psi += [Normal(found[rank].mean[i], found[rank].stddev[i]) for i, rank in enumerate(best)]
        q_x = vae.q_z(part)
        proposal = [*found, q_x]  # no mode is lost that one of them has seen
        proposal += [Normal(q.mean, WIDER * q.stddev) for q in proposal]
        weights = log_weights(vae, part, proposal, SAMPLES, vae.likelihood.log_prob)
        sampled = importance_bound(weights)
        error = (weights - sampled).exp().std(dim=0) / len(weights) ** 0.5
        rows.append(torch.stack([elbos.amax(dim=0), exact_elbo(vae, part, q_x), sampled, error]))
    elbo_psi, elbo_x, sampled, error = torch.cat(rows, dim=1)
    gap, rest, off = elbo_psi - elbo_x, log_p - elbo_psi, sampled - log_p
    results = {
        "images": len(x),
        "log_p": mean_and_se(log_p),
        "amortisation_gap": mean_and_se(gap) | {"median": gap.median().item()},
        "encoder_better": {"by": CLEARLY, "share": (gap < -CLEARLY).double().mean().item()},
        "remaining_gap": mean_and_se(rest),
        "least_remaining_gap": rest.min().item(),  # under 0 if mass of p(Z|x) lies outside the grid
        "finer_grid": {"images": len(finer), "largest_change": finer.abs().max().item()},
        "median_error": off.abs().median().item(),
        "within_three_errors": (off.abs() < 3 * error + 1e-3).double().mean().item(),
    }
    source.save(f"posterior-{options.run}", results)
    order, q_x = gap.argsort().tolist(), vae.q_z(x)
    figure, axes = plt.subplots(3, 4, figsize=(6.5, 4.6), height_ratios=[1, 2, 2])
    chosen = [*order[len(order) // 2 :][:2], *order[-2:]]  # two of median amortisation gap, and the two largest
    for (top, whole, near), i in zip(axes.T, chosen, strict=True):
        top.imshow(x[i, 0].cpu().numpy(), **GREY)
        top.axis("off")
        encoder = Normal(q_x.mean[i], q_x.stddev[i])
        both = [(q_psi[i], COLOURS[4], "$q(Z|\\Psi_*)$"), (encoder, COLOURS[5], "$q(Z|x)$")]
        draw_posterior(whole, vae, x[i : i + 1], both)
        draw_posterior(near, vae, x[i : i + 1], both[:1])
        near.set_xlabel("$z_1$")
    axes[1, 0].set_ylabel("$z_2$")
    axes[2, 0].set_ylabel("$z_2$")
    legend_below(figure, axes[1, 0])
    save_figure(figure, f"{options.run}-posterior", source)


def plane(vae: VAE, x: Tensor, step: float) -> tuple[Tensor, Psi]:
    """log p(x) of x (N, 1, 28, 28) by the midpoint rule, (N,), and where to start Psi, (N, MODES, 2)."""
    axis = torch.arange(-RANGE, RANGE + step / 2, step, device=x.device)
    z, rows = torch.cartesian_prod(axis, axis), []
    for image, values in tqdm(zip(x.split(1), log_joint_table(vae, x, z), strict=True), desc="images", total=len(x)):
        table = values.view(1, len(axis), len(axis))
        peaks = torch.where(table == max_pool2d(table, 3, stride=1, padding=1), table, -torch.inf).flatten()
        cells, log_mass = refined(vae, image, z, values, step)
        start = moments(cells, log_mass, z[peaks.topk(MODES).indices], step / FINER)
        rows.append((log_mass.logsumexp(dim=0), *start))
    log_p, mean, log_sigma = (torch.stack(part) for part in zip(*rows, strict=True))
    return log_p, Psi(mean, log_sigma)


def fitted(vae: VAE, x: Tensor, starts: Psi) -> list[Normal]:
    """MODES of q(Z|Psi) for each of x (N, 1, 28, 28), (N, 2) each, by Task 4a's steps from starts (N, MODES, 2)."""
    psi = Psi(*(part.flatten(0, 1).clone().requires_grad_() for part in starts))
    optimiser, x, sums = torch.optim.Adam(psi, lr=RATE), x.repeat_interleave(MODES, dim=0), []
    for window in range(WINDOWS):
        noise = torch.randn(WINDOW, *psi.mean.shape, device=x.device)
        sums.append(ascend(vae, x, None, psi, slice(None), optimiser, noise, WINDOW * window))
    average = torch.stack(sums[-AVERAGED:]).mean(dim=0) / WINDOW
    mean, log_sigma, _ = average.view(-1, MODES, 5).tensor_split([2, 4], dim=2)
    return [Psi(mean[:, mode], log_sigma[:, mode]).q_z() for mode in range(MODES)]


def log_joint_table(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z) + log p(z) for each of x (N, 1, 28, 28) and each of z (M, 2): (N, M).

    So the plane is decoded once for all images: for the Bernoulli model log p(x|z) = sum_d x_d logit pi_d +
    log(1 - pi_d), a matrix product.
    """
    columns = []
    for part in z.split(2000):
        logits = vae.p_x(part).logits.flatten(1)  # (M, 784)
        log_p = x.flatten(1) @ logits.T - softplus(logits).sum(dim=1)
        columns.append(log_p + vae.p_z.log_prob(part))
    return torch.cat(columns, dim=1)


def refined(vae: VAE, x: Tensor, z: Tensor, values: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Cells z (M, 2) of one image x (1, ...), small where its posterior is narrow, and their log masses (M,)."""
    for near in NEAR:
        kept = z[values > values.max() - near]
        if len(kept) > MOST:
            break
        offsets = (torch.arange(FINER, device=z.device) - FINER // 2) * step / FINER
        z = (kept.unsqueeze(1) + torch.cartesian_prod(offsets, offsets)).flatten(0, 1)
        step /= FINER
        values = log_joint_table(vae, x, z)[0]
    return z, values + 2 * math.log(step)


def moments(z: Tensor, log_mass: Tensor, modes: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation of the cells z (M, 2) that are nearest to each of modes (S, 2), (S, 2) each."""
    share = log_mass.softmax(dim=0).unsqueeze(1) * one_hot(torch.cdist(z, modes).argmin(dim=1), len(modes))  # (M, S)
    mass = share.sum(dim=0).unsqueeze(1).clamp_min(1e-30)
    mean = share.T @ z / mass
    sigma = torch.stack([(share[:, s] @ (z - mean[s]).square() / mass[s]).sqrt() for s in range(len(modes))])
    empty = mass < 1e-20
    return torch.where(empty, modes, mean), torch.where(empty, least, sigma.clamp_min(least / 10)).log()


def exact_elbo(vae: VAE, x: Tensor, q_z: Normal) -> Tensor:
    """The ELBO of each image, E_q[log p(x|z) p(z)] plus the entropy of q, by Gauss-Hermite quadrature: (N,)."""
    nodes, weights = (torch.from_numpy(part).float().to(x.device) for part in np.polynomial.hermite_e.hermegauss(NODES))
    noise, weight = torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(dim=1)
    z = q_z.mean + q_z.stddev * noise.unsqueeze(1)  # (NODES^2, N, 2)
    expected = weight @ log_joint(vae, x, vae.likelihood.log_prob)(z) / weight.sum()
    return expected + q_z.entropy().sum(dim=1)


def draw_posterior(axis: Axes, vae: VAE, x: Tensor, approximations: list[tuple[Normal, str, str]]) -> None:
    """The exact posterior as shades, and ellipses at one and two standard deviations of the approximations."""
    low = torch.stack([q.mean - 4 * q.stddev for q, _, _ in approximations]).amin(dim=0)
    high = torch.stack([q.mean + 4 * q.stddev for q, _, _ in approximations]).amax(dim=0)
    first, second = (torch.linspace(low[d].item(), high[d].item(), SHADES, device=x.device) for d in range(2))
    density = log_joint_table(vae, x, torch.cartesian_prod(first, second)).view(SHADES, SHADES)
    density = (density - density.max()).exp().T.cpu().numpy()
    extent = (low[0].item(), high[0].item(), low[1].item(), high[1].item())
    axis.imshow(density, cmap="Greys", origin="lower", extent=extent, aspect="auto", interpolation="bilinear")
    angle = torch.linspace(0, 2 * math.pi, 100)
    circle = torch.stack([angle.cos(), angle.sin()])
    for q, colour, label in approximations:
        for radius in (1, 2):
            ellipse = q.mean.cpu().unsqueeze(1) + radius * q.stddev.cpu().unsqueeze(1) * circle
            axis.plot(*ellipse.numpy(), color=colour, lw=1, label=label if radius == 1 else None)
    axis.locator_params(nbins=4)
    axis.tick_params(labelsize=6)


if __name__ == "__main__":
    cli.main(main)
