"""Task 4a: q(Z|Psi) for single images, fitted by stochastic gradient ascent on the ELBO, without the encoder.

Psi = (mean, log_sigma)                         Psi
one sample z ~ q(Z|Psi), reparameterised        ascend
a gradient step on Psi alone, by Adam           ascend
the stopping criterion                          infer: PATIENCE windows without a better average
z ~ q(Z|Psi*), x' ~ p(X|z)                      task_4/reconstruct.py; of left halves: task_4/complete.py
"""

import hashlib
from typing import NamedTuple

from common.vae import VAE, check_pixels, elbo

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.optim import Adam

WINDOW = 50  # steps over which the one-sample ELBO is averaged, since a single draw says little
EARLY = 3  # windows after which the starts of an image are compared, and the best go on; fewer than PATIENCE
PATIENCE = 4  # stop an optimisation after so many windows without a better average
MAX_WINDOWS = 40  # stop in any case; report/studies/gaps.py counts how often
STARTS = 4  # optimisations of each image, one from N(0, I), the others from means drawn from that
LEARNING_RATE, HALF_TIME = 0.3, 50  # Adam's step size at step t is LEARNING_RATE / (1 + t / HALF_TIME)


class Psi(NamedTuple):
    """The parameters of q(Z|Psi): means and logarithms of standard deviations, (N, K) each, a row for each fit."""

    mean: Tensor
    log_sigma: Tensor

    def q_z(self) -> Normal:
        return Normal(self.mean, self.log_sigma.exp())


class Inferred(NamedTuple):
    """Psi*, the average objective at its end (N,), and the steps taken (N,)."""

    psi: Psi
    objective: Tensor
    steps: Tensor


def infer(
    vae: VAE, x: Tensor, mask: Tensor | None = None, starts: int = STARTS, keep: int = 1, stream: int = 0
) -> list[Inferred]:
    """Psi* = argmax E_q(Z|Psi)[log p(x|z)] - KL(q(Z|Psi) || p(Z)) for each image of x (N, 1, 28, 28) by itself.

    mask: bool, broadcast to x: the likelihood's pixels (Task 4b: the left half). starts: optimisations of an image, of
    which after EARLY windows the keep best go on. Each ends when PATIENCE windows in a row have had no better average
    objective than its best window; its Psi* is the average of Psi over that window and those since. They are returned
    with each image's best first.

    Optimisations share a tensor but no parameter: Adam works on each coordinate, and the decoder, which must be in eval
    mode and stays as it is, mixes no images. Their noise is seeded by the pixels that the objective sees, and by
    stream: so an image takes the same path alone and in company, and nothing of x_R enters.
    """
    check_pixels(x)
    k = vae.latent_dim
    seen = x if mask is None else torch.where(mask, x, 0.0)
    generators = [generator_of(image, start, stream) for image in seen.cpu() for start in range(starts)]
    mean = torch.stack([torch.randn(k, generator=generator) for generator in generators]).to(x.device)
    mean[::starts] = 0.0  # the first of each image
    psi = Psi(mean.requires_grad_(), torch.zeros_like(mean, requires_grad=True))
    optimiser = Adam(psi, lr=LEARNING_RATE)
    ends = x.new_full((len(mean), 2 * k + 2), -torch.inf)  # mean, log sigma, average objective, steps
    going = torch.arange(len(mean), device=x.device)  # the optimisations that go on; for each of them:
    best, waited = x.new_full((len(mean),), -torch.inf), torch.zeros_like(going)  # its best window's sum, windows since
    sums = torch.zeros_like(ends[:, :-1])  # of mean, log sigma and objective over the best window and those since
    for window in range(1, MAX_WINDOWS + 1):
        noise = torch.stack([torch.randn(WINDOW, k, generator=generators[i]) for i in going.tolist()], dim=1)
        path = ascend(vae, x[going // starts], mask, psi, going, optimiser, noise.to(x.device), WINDOW * (window - 1))
        better = path[:, -1] > best  # (M,)
        best, waited = torch.where(better, path[:, -1], best), torch.where(better, 0, waited + 1)
        sums = torch.where(better.unsqueeze(1), path, sums + path)
        ends[going, :-1], ends[going, -1] = sums / (WINDOW * (waited + 1)).unsqueeze(1), float(WINDOW * window)
        stays = waited < PATIENCE  # the stopping criterion
        if window == EARLY:  # nobody is done yet, since PATIENCE is more
            stays = torch.zeros_like(stays).index_fill(0, ranked(best, starts)[:keep].flatten(), True)
            ends[going[~stays]] = -torch.inf
        if not stays.any():
            break
        going, best, waited, sums = (part[stays] for part in (going, best, waited, sums))
    kept = ends[ranked(ends[:, -2], starts)[:keep]]  # (keep, N, 2 K + 2)
    return [Inferred(Psi(end[:, :k], end[:, k:-2]), end[:, -2], end[:, -1]) for end in kept]


def ranked(values: Tensor, starts: int) -> Tensor:
    """Optimisations as rows of values (N starts,), (starts, N): of each image the best first, those given up last."""
    values = values.nan_to_num(torch.finfo(values.dtype).min, neginf=-torch.inf)
    order = values.view(-1, starts).argsort(dim=1, descending=True)
    return (order + starts * torch.arange(len(order), device=values.device).unsqueeze(1)).T


def generator_of(seen: Tensor, start: int, stream: int) -> torch.Generator:
    key = hashlib.sha256(seen.numpy().tobytes() + f"{start} {stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))


def ascend(
    vae: VAE, x: Tensor, mask: Tensor | None, psi: Psi, rows: Tensor | slice, optimiser: Adam, noise: Tensor, step: int
) -> Tensor:
    """A step in M rows of psi for each of noise (., M, K); sums of mean, log sigma and objective, (M, 2 K + 1)."""
    sums = 0
    for now, epsilon in enumerate(noise, step):
        optimiser.param_groups[0]["lr"] = optimiser.defaults["lr"] / (1 + now / HALF_TIME)
        q_z = Psi(*(part[rows] for part in psi)).q_z()
        estimate = elbo(vae, x, q_z, mask, z=q_z.mean + q_z.stddev * epsilon).elbo  # one sample, reparameterised
        optimiser.zero_grad()
        (-estimate.sum()).backward(inputs=list(psi))  # the decoder gets no gradients
        optimiser.step()  # the other rows, which have ended, may drift
        sums = sums + torch.cat([*(part[rows] for part in psi), estimate.unsqueeze(1)], dim=1).detach()
    return sums
