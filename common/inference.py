"""Task 4: q(Z|Psi) for single images, fitted by gradient ascent on the ELBO, without the encoder."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal
from tqdm import tqdm

from common.vae import VAE, elbo

WINDOW = 50  # steps over which the one-sample ELBO is averaged, since a single draw says little
PATIENCE = 4  # stop an image after so many windows without a better average
MAX_WINDOWS = 40  # stop in any case; such images are reported
STEP_SIZE, HALF_TIME = 0.3, 50  # Adam's step size at step t is STEP_SIZE / (1 + t / HALF_TIME)


class Psi(NamedTuple):
    """The parameters of q(Z|Psi): means and logarithms of standard deviations, (N, K) each, a row for each image."""

    mean: Tensor
    log_sigma: Tensor

    def q_z(self) -> Normal:
        return Normal(self.mean, self.log_sigma.exp(), validate_args=False)


class Inferred(NamedTuple):
    """Psi*, the average objective at its end (N,), the steps taken (N,), and whether the cap ended them (N,)."""

    psi: Psi
    objective: Tensor
    steps: Tensor
    capped: Tensor


def infer(vae: VAE, x: Tensor, mask: Tensor | None = None, starts: Iterable[int] = (0, 1)) -> Inferred:
    """Psi* = argmax E_q(Z|Psi)[log p(x|z)] - KL(q(Z|Psi) || p(Z)) for each image of x (N, 1, 28, 28) by itself.

    mask: bool, broadcast to x: the likelihood's pixels (Task 4b: the left half). starts: one optimisation of each image
    for each number, 0 from N(0, I), any other from a mean drawn from the prior; the best final average wins.

    The images share a tensor but no parameter: the objective is their sum, Adam works on each coordinate, and the
    decoder, which must be in eval mode and stays as it is, mixes no images. All images get the same noise, so that an
    image's result does not depend on its company.
    """
    return ranked([_ascend(vae, x, mask, start) for start in starts])[0]


def ranked(results: list[Inferred]) -> list[Inferred]:
    """The results of several starts sorted for each image, the one with the best final average first."""
    objectives = torch.stack([result.objective for result in results]).nan_to_num(-torch.inf)  # (starts, N)
    order = objectives.argsort(dim=0, descending=True)
    rows = torch.arange(order.shape[1], device=order.device)

    def choose(parts: list[Tensor], rank: int) -> Tensor:
        return torch.stack(parts)[order[rank], rows]

    def at(rank: int) -> Inferred:
        psi = Psi(*(choose([result.psi[i] for result in results], rank) for i in range(2)))
        return Inferred(psi, *(choose([result[i] for result in results], rank) for i in range(1, 4)))

    return [at(rank) for rank in range(len(results))]


def _ascend(vae: VAE, x: Tensor, mask: Tensor | None, start: int) -> Inferred:
    """One optimisation of each image. An image that has stopped leaves the tensors."""
    n, k, device = len(x), vae.latent_dim, x.device
    generator = torch.Generator().manual_seed(start)
    mean = torch.randn(k, generator=generator).to(device) if start else torch.zeros(k, device=device)
    psi = Psi(mean.repeat(n, 1).requires_grad_(), torch.zeros(n, k, device=device).requires_grad_())
    optimiser = torch.optim.Adam(psi, lr=STEP_SIZE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + step / HALF_TIME))
    averages = torch.empty(n, 2 * k + 1, device=device)  # at the end: mean, log sigma and objective
    steps, capped = torch.empty(n, dtype=torch.int64, device=device), torch.empty(n, dtype=torch.bool, device=device)

    left = torch.arange(n, device=device)  # the images that go on; for each of them:
    best = torch.full((n,), -torch.inf, device=device)  # its best window's sum of objectives
    waited = torch.zeros(n, dtype=torch.int64, device=device)  # windows since then
    sums = torch.zeros_like(averages)  # over the best window and those since: with little of a single step's noise
    with tqdm(total=n, desc=f"Psi, start {start}", unit="image", leave=False) as bar:
        for window in range(1, MAX_WINDOWS + 1):
            path = _window(vae, x[left], mask, psi, optimiser, schedule, generator)  # (left, 2 K + 1)
            better = path[:, -1] > best
            best, waited = torch.where(better, path[:, -1], best), torch.where(better, 0, waited + 1)
            sums = torch.where(better.unsqueeze(1), path, sums + path)
            done = (waited >= PATIENCE) | (window == MAX_WINDOWS)
            averages[left[done]] = sums[done] / (WINDOW * (waited[done] + 1)).unsqueeze(1)
            steps[left[done]], capped[left[done]] = WINDOW * window, waited[done] < PATIENCE
            bar.update(int(done.sum()))
            if done.all():
                break
            left, best, waited, sums = (part[~done] for part in (left, best, waited, sums))
            psi = _keep(optimiser, psi, ~done)
    return Inferred(Psi(averages[:, :k], averages[:, k : 2 * k]), averages[:, -1], steps, capped)


def _window(
    vae: VAE,
    x: Tensor,
    mask: Tensor | None,
    psi: Psi,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
) -> Tensor:
    """WINDOW steps of ascent; the sums over them of mean, log sigma and objective of each image, (N, 2 K + 1)."""
    sums = 0
    for _ in range(WINDOW):
        q_z = psi.q_z()
        noise = torch.randn(vae.latent_dim, generator=generator).to(x.device)
        estimate = elbo(vae, x, q_z, mask, z=q_z.mean + q_z.stddev * noise).elbo
        optimiser.zero_grad()
        (-estimate.sum()).backward()
        optimiser.step()
        schedule.step()
        sums = sums + torch.cat([*psi, estimate.unsqueeze(1)], dim=1).detach()
    return sums


def _keep(optimiser: torch.optim.Adam, psi: Psi, rows: Tensor) -> Psi:
    """Keep only these rows of Psi, in the optimiser and its moments, too."""
    kept = Psi(*(parameter.detach()[rows].requires_grad_() for parameter in psi))
    for i, (old, new) in enumerate(zip(psi, kept, strict=True)):
        moments = optimiser.state.pop(old)
        optimiser.state[new] = {name: m[rows] if m.dim() else m for name, m in moments.items()}
        optimiser.param_groups[0]["params"][i] = new
    return kept
