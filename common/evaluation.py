"""Measures of a trained model: bits per grey level, importance-weighted likelihoods, and scores of its images."""

import math
from collections.abc import Callable

import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.distributions import Distribution, Normal, kl_divergence

from common.likelihoods import LEVELS, Likelihood
from common.vae import VAE, grey_level_frequencies

Score = Callable[[Distribution, Tensor], Tensor]  # (p_x, x) -> log p, (B,)


def mean_and_se(values: Tensor) -> dict[str, float]:
    """Mean over images and its standard error."""
    values = values.double()
    return {"mean": values.mean().item(), "se": values.std().item() / len(values) ** 0.5}


def bits_per_dimension(log_mass: Tensor) -> dict[str, float]:
    """log P of whole images, (N,), in nats, as mean and standard error of -log2 P / 784."""
    return mean_and_se(-log_mass / (math.log(2) * 28 * 28))


def own_score(likelihood: Likelihood) -> Score:
    """log p(x|z) on the model's own scale."""
    return lambda p_x, x: likelihood.log_prob(p_x, x).sum(dim=(1, 2, 3))


def grey_score(likelihood: Likelihood, x_train: Tensor) -> Score:
    """log P(X = x|z) as a probability of 256 grey levels per pixel.

    Where a likelihood joins levels in bins, a bin's probability is shared out as its levels occur in x_train.
    """
    counts = grey_level_frequencies(x_train).sum(dim=(1, 2, 3))  # (256,)
    bins = likelihood.observe(torch.linspace(0, 1, LEVELS, device=x_train.device))
    in_bin = torch.stack([counts[bins == value].sum() for value in bins])  # what the level's whole bin has
    log_share = (counts / in_bin).log()

    def score(p_x: Distribution, x: Tensor) -> Tensor:
        level = (x * (LEVELS - 1)).round().long()
        return (likelihood.log_mass(p_x, x) + log_share[level]).sum(dim=(1, 2, 3))

    return score


@torch.no_grad()
def log_weights(vae: VAE, x: Tensor, q_z: Normal, samples: int, score: Score, block: int = 500) -> Tensor:
    """log [p(x|z) p(z) / q(z)] for z ~ q(Z): (samples, N). Their mean over samples is the ELBO.

    x: (N, 1, 28, 28); q_z: one distribution per image, batch shape (N, K).
    """
    columns = []
    for i in range(len(x)):
        q_i = Normal(q_z.mean[i], q_z.stddev[i], validate_args=False)
        parts = []
        for start in range(0, samples, block):
            z = q_i.sample((min(block, samples - start),))  # (S, K)
            log_p = score(vae.p_x(z), x[i : i + 1].expand(len(z), -1, -1, -1))
            parts.append(log_p + (vae.p_z.log_prob(z) - q_i.log_prob(z)).sum(dim=1))
        columns.append(torch.cat(parts))
    return torch.stack(columns, dim=1)


def sample_mixture(q_z: Normal, samples: int) -> tuple[Tensor, Tensor]:
    """Draws of the mixture of M normals with equal weights, q_z of batch shape (M, K): so many of each component.

    Returns z (samples M, K) and log q(z) of the mixture (samples M,).
    """
    z = q_z.sample((samples,)).flatten(0, 1)
    log_q = q_z.log_prob(z.unsqueeze(1)).sum(dim=2).logsumexp(dim=1) - math.log(len(q_z.mean))
    return z, log_q


def importance_bound(weights: Tensor, samples: int) -> Tensor:
    """log of the mean of the first samples weights: (N,), a lower bound of log p(x) (Burda et al. 2016)."""
    return weights[:samples].logsumexp(dim=0) - math.log(samples)


@torch.no_grad()
def elbo_by(vae: VAE, x: Tensor, score: Score, batch_size: int = 250) -> Tensor:
    """One-sample ELBO of each image under a score: (N,)."""
    parts = []
    for part in x.split(batch_size):
        q_z = vae.q_z(part)
        parts.append(score(vae.p_x(q_z.sample()), part) - kl_divergence(q_z, vae.p_z).sum(dim=1))
    return torch.cat(parts)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Distance of the Gaussians fitted to two sets of features, (N, F) each (Heusel et al. 2017)."""
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp_min(0).sqrt() @ vectors.T
    # the trace of the root of cov_a cov_b, by a symmetric matrix with the same eigenvalues
    root = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp_min(0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root).item()


def label_scores(p_y: Tensor) -> dict[str, float]:
    """From predicted label probabilities (N, 10), in nats: the mean entropy of one image's labels (low: clear digits),
    the entropy of all labels together (high: all digits alike; at most log 10), and exp of the difference, an inception
    score for MNIST (at most 10)."""

    def entropy(p: Tensor) -> Tensor:
        return -torch.special.xlogy(p, p).sum(-1)

    each, together = entropy(p_y).mean().item(), entropy(p_y.mean(0)).item()
    return {"entropy_each": each, "entropy_together": together, "inception_score": math.exp(together - each)}


def neighbour_accuracy(u: Tensor, y: Tensor, u_test: Tensor, y_test: Tensor, neighbours: int = 15) -> float:
    """Share of u_test (M, K) whose label is that of most of their nearest neighbours in u (N, K)."""
    classifier = KNeighborsClassifier(neighbours, algorithm="brute").fit(u.cpu().numpy(), y.cpu().numpy())
    return float(classifier.score(u_test.cpu().numpy(), y_test.cpu().numpy()))


@torch.no_grad()
def encode(vae: VAE, x: Tensor, batch_size: int = 500) -> Tensor:
    """mu(x), the means of q(Z|x): (N, K)."""
    return torch.cat([vae.q_z(part).mean for part in x.split(batch_size)])
