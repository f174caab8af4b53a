"""Draws from a density of z that is known up to its integral: annealed importance sampling (Neal 2001).

Chains start at draws of a mixture q, and Hamiltonian Monte Carlo takes them through densities proportional to
q(z)^(1 - b) target(z)^b while b rises from 0 to 1. The weights that this gives them are right for any q: a mode gets
the weight that it has in the target, however many chains began there.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from common.vae import VAE, Score

import torch
from torch import Tensor
from torch.distributions import Normal

CHAINS, TEMPERATURES, LEAPS, STEP = 16, 80, 4, 0.5  # STEP: of the leapfrog, in standard deviations of q's components
LogDensity = Callable[[Tensor], Tensor]  # z (C, N, K), of C chains for each of N images, to (C, N)


class State(NamedTuple):
    """Chains z (C, N, K), the logarithms of target and q there, (C, N, 2), and their slopes, (C, N, K, 2)."""

    z: Tensor
    logs: Tensor
    slopes: Tensor


def log_joint(vae: VAE, x: Tensor, score: Score) -> LogDensity:
    """log p(x|z), or that of x_L, by a score, plus log p(z), for x (N, 1, 28, 28): in z the posterior, unnormalised."""

    def density(z: Tensor) -> Tensor:
        log_p = score(vae.p_x(z.flatten(0, 1)), x.repeat(len(z), 1, 1, 1)).sum(dim=(1, 2, 3))
        return log_p.view(z.shape[:2]) + vae.p_z.log_prob(z)

    return density


def anneal(target: LogDensity, parts: list[Normal], chains: int, temperatures: int) -> tuple[Tensor, Tensor]:
    """Chains z (C, N, K) and the logarithms of their weights (C, N), whose mean estimates the integral without bias.

    parts: q's components, equal in weight, (N, K) each.
    """
    q_z = Normal(torch.stack([part.mean for part in parts]), torch.stack([part.stddev for part in parts]))
    start = torch.arange(chains) % len(parts)  # as many chains from each component
    z = q_z.mean[start] + q_z.stddev[start] * torch.randn_like(q_z.mean[start])
    scale = STEP * q_z.stddev.log().mean(dim=0).exp()  # (N, K); one for all chains of an image, else no exact weights

    def state(z: Tensor) -> State:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_q = q_z.log_prob(z.unsqueeze(1)).sum(dim=3).logsumexp(dim=1) - math.log(len(parts))
            values = [target(z), log_q]
            slopes = [torch.autograd.grad(value.sum(), z)[0] for value in values]
        return State(z.detach(), torch.stack(values, dim=-1).detach(), torch.stack(slopes, dim=-1))

    now, log_w = state(z), torch.zeros(z.shape[:2], device=z.device)
    for step in range(1, temperatures + 1):
        log_w += (now.logs[..., 0] - now.logs[..., 1]) / temperatures
        now = transition(state, now, scale, torch.tensor([step, temperatures - step], device=z.device) / temperatures)
    return now.z, log_w


def transition(state: Callable[[Tensor], State], now: State, scale: Tensor, b: Tensor) -> State:
    """A step of Hamiltonian Monte Carlo, which leaves the density target^b[0] q^b[1] as it is."""
    end, momentum = now, torch.randn_like(now.z)
    before = now.logs @ b - momentum.square().sum(dim=2) / 2  # (C, N)
    for _ in range(LEAPS):
        momentum = momentum + scale / 2 * (end.slopes @ b)
        end = state(end.z + scale * momentum)
        momentum = momentum + scale / 2 * (end.slopes @ b)
    taken = torch.rand_like(before).log() < end.logs @ b - momentum.square().sum(dim=2) / 2 - before
    for old, new in zip(now, end, strict=True):
        old[taken] = new[taken]
    return now


def resampled(z: Tensor, log_w: Tensor, count: int) -> Tensor:
    """So many of each image's z (N, C, K) in proportion to their weights (N, C), each as often as that, rounded."""
    edges = log_w.softmax(dim=1).cumsum(dim=1)
    places = (torch.rand(len(z), 1, device=z.device) + torch.arange(count, device=z.device)) / count
    chosen = torch.searchsorted(edges, places).clamp_max(z.shape[1] - 1)  # (N, count)
    return z.take_along_dim(chosen.unsqueeze(2), dim=1)
