"""Measures of a trained model: bits per grey level, importance-weighted likelihoods, and errors of means."""

import math
from collections.abc import Callable

from common.grey_levels import LEVELS, level_frequencies, level_of
from common.likelihoods import Likelihood
from common.vae import ELBO, VAE

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

Score = Callable[[Distribution, Tensor], Tensor]  # (p_x, x) -> log p, (B,) or (B, 1, 28, 28)


def mean_and_se(values: Tensor) -> dict[str, float]:
    """Mean over images and its standard error."""
    values = values.double()
    return {"mean": values.mean().item(), "se": values.std().item() / len(values) ** 0.5}


def bits_per_dimension(log_mass: Tensor) -> Tensor:
    """log P of whole images in nats as -log2 P / 784, image by image."""
    return -log_mass.double() / (math.log(2) * 28 * 28)


def bits_without_latents(x_train: Tensor, x: Tensor) -> Tensor:
    """Bits per dimension of x (N, 1, 28, 28) if each pixel has its own grey-level frequencies of x_train: (N,)."""
    return bits_per_dimension(level_frequencies(x_train).log().gather(0, level_of(x)).sum(dim=(1, 2, 3)))


def own_score(likelihood: Likelihood, mask: Tensor | None = None) -> Score:
    """log p(x|z) on the model's own scale; with a mask that of its pixels alone."""
    if mask is None:
        return lambda p_x, x: likelihood.log_prob(p_x, x).sum(dim=(1, 2, 3))

    def of(p_x: Distribution, x: Tensor) -> Tensor:
        seen = mask.to(x.device)
        return torch.where(seen, likelihood.log_prob(p_x, torch.where(seen, x, 0.0)), 0.0).sum(dim=(1, 2, 3))

    return of


def grey_mass(likelihood: Likelihood, x_train: Tensor) -> Score:
    """log P(x_d|z) of each pixel, (B, 1, 28, 28), as one of 256 grey levels.

    Where a likelihood joins levels in bins, a bin's probability is shared out as its levels occur in x_train.
    """
    counts = level_frequencies(x_train).sum(dim=(1, 2, 3))  # (256,)
    bins = likelihood.observe(torch.arange(LEVELS, device=x_train.device) / (LEVELS - 1))
    in_bin = torch.stack([counts[bins == value].sum() for value in bins])  # what the level's whole bin has
    log_share = (counts / in_bin).log()
    return lambda p_x, x: likelihood.log_mass(p_x, x) + log_share[level_of(x)]


def grey_score(likelihood: Likelihood, x_train: Tensor) -> Score:
    """log P(X = x|z) as a probability of 256 grey levels per pixel."""
    mass = grey_mass(likelihood, x_train)
    return lambda p_x, x: mass(p_x, x).sum(dim=(1, 2, 3))


@torch.no_grad()
def elbo_by(vae: VAE, x: Tensor, score: Score, batch_size: int = 250) -> ELBO:
    """One-sample ELBO of each image of x (N, 1, 28, 28), and its two parts, by a score of p(x|z): (N,) each."""
    parts = []
    for part in x.split(batch_size):
        q_z = vae.q_z(part)
        z = q_z.sample()
        parts.append((score(vae.p_x(z), part), vae.kl(q_z, z)))
    log_p, kl = (torch.cat(part) for part in zip(*parts, strict=True))
    return ELBO(log_p - kl, log_p, kl)


@torch.no_grad()
def log_weights(
    vae: VAE, x: Tensor, q_z: Normal | list[Normal], samples: int, score: Score, block: int = 500
) -> Tensor:
    """log [p(x|z) p(z) / q(z)] for z ~ q(Z): (samples, N). Their mean over samples is the ELBO.

    x: (N, 1, 28, 28); q_z: one distribution per image, batch shape (N, K), or J of them, the components of a mixture
    with equal weights, of each of which so many samples are drawn: (J samples, N).
    """
    parts, columns = [q_z] if isinstance(q_z, Normal) else q_z, []
    for i in range(len(x)):
        q_i = Normal(torch.stack([part.mean[i] for part in parts]), torch.stack([part.stddev[i] for part in parts]))
        z = q_i.sample((samples,)).flatten(0, 1)  # (J S, K)
        log_q = q_i.log_prob(z.unsqueeze(1)).sum(dim=2).logsumexp(dim=1) - math.log(len(parts))
        log_p = torch.cat([score(vae.p_x(some), x[i : i + 1].expand(len(some), -1, -1, -1)) for some in z.split(block)])
        columns.append(log_p + vae.p_z.log_prob(z) - log_q)
    return torch.stack(columns, dim=1)


def importance_bound(weights: Tensor, samples: int) -> Tensor:
    """log of the mean of the first samples weights: (N,), a lower bound of log p(x) (Burda et al. 2016)."""
    return weights[:samples].logsumexp(dim=0) - math.log(samples)


@torch.no_grad()
def encode(vae: VAE, x: Tensor, batch_size: int = 500) -> Tensor:
    """mu(x), the means of q(Z|x): (N, K)."""
    return torch.cat([vae.q_z(part).mean for part in x.split(batch_size)])


@torch.no_grad()
def decoded(vae: VAE, z: Tensor, draw: Callable[[Distribution], Tensor], batch_size: int = 500) -> Tensor:
    """An image for each z (N, K), (N, 1, 28, 28), by draw: the likelihood's sample, mean or show."""
    return torch.cat([draw(vae.p_x(part)) for part in z.split(batch_size)])
