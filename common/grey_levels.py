"""Pixels as the 256 grey levels that they are: how often each occurs, and the probability that a density gives it."""

import torch
from torch import Tensor
from torch.distributions import Beta, Normal

LEVELS = 256  # MNIST's pixels are the grey levels 0/255, 1/255, ..., 255/255
RESOLUTION = 1 / (LEVELS - 1)  # the distance of two levels
PRIOR_IMAGES = 300  # so many images' worth of all pixels smooth the frequencies at one: chosen on validation images


def level_of(x: Tensor) -> Tensor:
    """Pixels in [0, 1] as levels 0 to 255, int64."""
    return (x * (LEVELS - 1)).round().long()


def level_frequencies(x: Tensor) -> Tensor:
    """Share of each grey level at each pixel of x (N, 1, 28, 28): (256, 1, 28, 28); none is 0.

    It is as if x had PRIOR_IMAGES more, at each of whose pixels the levels are as frequent as at all pixels together.
    """
    counts = torch.zeros(LEVELS, *x.shape[1:], device=x.device)
    counts.scatter_add_(0, level_of(x), torch.ones_like(x))
    overall = (counts.sum(dim=(1, 2, 3), keepdim=True) + 1 / LEVELS) / (x.numel() + 1)
    return (counts + PRIOR_IMAGES * overall) / (len(x) + PRIOR_IMAGES)


def log_normal_mass(p_x: Normal, x: Tensor) -> Tensor:
    """log of the normal's mass in the cell of each grey level x, in double precision; the tails belong to the end
    levels. (B, 1, 28, 28)."""
    mu, sigma, x = p_x.loc.double(), p_x.scale.double(), x.double()
    low = torch.where(x <= 0, -torch.inf, (x - RESOLUTION / 2 - mu) / sigma)
    high = torch.where(x >= 1, torch.inf, (x + RESOLUTION / 2 - mu) / sigma)
    low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)  # into the accurate tail
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return log_high + torch.log1p(-torch.exp(log_low - log_high))


def log_beta_mass(p_x: Beta, x: Tensor, width: float) -> Tensor:
    """The same for a Beta and squeezed pixels x, whose cells are so wide; the end cells reach to 0 and to 1."""
    from scipy.special import betainc  # torch has none; loaded where it is needed

    alpha, beta, x = p_x.concentration1.double(), p_x.concentration0.double(), x.double()
    edge = 0.5 - (LEVELS / 2 - 1) * width  # between the levels 0 and 1
    low = torch.where(x < edge, 0.0, x - width / 2)
    high = torch.where(x > 1 - edge, 1.0, x + width / 2)
    flip = low > alpha / (alpha + beta)  # by symmetry into the left tail, which is the accurate one
    alpha, beta = torch.where(flip, beta, alpha), torch.where(flip, alpha, beta)
    low, high = torch.where(flip, 1 - high, low), torch.where(flip, 1 - low, high)
    a, b, lower, upper = (part.cpu().numpy() for part in (alpha, beta, low, high))
    mass = betainc(a, b, upper)
    inner = lower > 0
    mass[inner] -= betainc(a[inner], b[inner], lower[inner])
    mass = torch.from_numpy(mass).to(x.device)
    # far in a tail, where betainc loses its digits and then all: nearly all of the cell's mass lies at the edge that is
    # nearer to the centre, and from there the logarithm of the density falls by about this slope
    slope = (alpha - 1) / high - (beta - 1) / (1 - high)
    tail = Beta(alpha, beta).log_prob(high) + (-torch.expm1(-slope * (high - low)) / slope).log()
    return torch.where(mass > 1e-200, mass.clamp_min(1e-200).log(), tail)
