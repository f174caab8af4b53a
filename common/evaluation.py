"""Measures of a trained model: bits per dimension, and importance-weighted likelihoods."""

import math
from collections.abc import Callable

from common.annealing import log_joint
from common.grey_levels import LEVELS, level_frequencies, level_of
from common.likelihoods import Likelihood
from common.vae import VAE, Score

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal


def mean_and_se(values: Tensor) -> dict[str, float]:
    """Mean over images and its standard error."""
    values = values.double()
    return {"mean": values.mean().item(), "se": values.std().item() / len(values) ** 0.5}


def bits_per_dimension(log_mass: Tensor) -> Tensor:
    """log P of whole images in nats as -log2 P / 784, image by image."""
    return -log_mass.double() / (math.log(2) * 28 * 28)


def grey_mass(likelihood: Likelihood, x_train: Tensor) -> Score:
    """log P(x_d|z) as one of 256 grey levels; a bin's probability is shared out as its levels occur at that pixel of
    x_train."""
    frequency = level_frequencies(x_train)  # (256, 1, 28, 28)
    bins = likelihood.observe(torch.arange(LEVELS, device=x_train.device) / (LEVELS - 1))
    in_bin = torch.stack([frequency[bins == value].sum(dim=0) for value in bins])  # what the level's whole bin has
    log_share = (frequency / in_bin).log()
    return lambda p_x, x: likelihood.log_mass(p_x, x) + log_share.gather(0, level_of(x))


@torch.no_grad()
def log_weights(vae: VAE, x: Tensor, q_z: Normal | list[Normal], samples: int, score: Score) -> Tensor:
    """log [p(x|z) p(z) / q(z)] for z ~ q(Z): (samples, N). Their mean over samples estimates the ELBO.

    x: (N, 1, 28, 28); q_z: one distribution per image, batch shape (N, K), or J of them, the components of a mixture
    with equal weights, of each of which so many samples are drawn: (J samples, N).
    """
    parts, columns = [q_z] if isinstance(q_z, Normal) else q_z, []
    for i in range(len(x)):
        q_i = Normal(torch.stack([part.mean[i] for part in parts]), torch.stack([part.stddev[i] for part in parts]))
        z = q_i.sample((samples,)).flatten(0, 1)  # (J S, K)
        log_q = q_i.log_prob(z.unsqueeze(1)).sum(dim=2).logsumexp(dim=1) - math.log(len(parts))
        columns.append(log_joint(vae, x[i : i + 1], score)(z.unsqueeze(1))[:, 0] - log_q)
    return torch.stack(columns, dim=1)


def importance_bound(weights: Tensor) -> Tensor:
    """log of each image's mean weight: (N,), a lower bound of log p(x) (Burda et al. 2016)."""
    return weights.logsumexp(dim=0) - math.log(len(weights))


@torch.no_grad()
def decoded(vae: VAE, z: Tensor, draw: Callable[[Distribution], Tensor], batch_size: int = 500) -> Tensor:
    """An image for each z (N, K), (N, 1, 28, 28), by draw: the likelihood's sample, mean or show."""
    return torch.cat([draw(vae.p_x(part)) for part in z.split(batch_size)])
