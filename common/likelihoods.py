"""The choices of p(X|z): one class each. Everything else loops over LIKELIHOODS; a task names one as its default.

A constant that a likelihood is built with, such as sigma_min, is a setting of Config with the same name and default.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from common.grey_levels import RESOLUTION, log_beta_mass, log_normal_mass
from common.inflated import InflatedBetaBinomial
from common.neighbours import Context, NeighbouringPixels

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Beta, Categorical, Distribution, Normal

EPS = 1e-6  # of the Beta
# torch's checks of arguments cost time at each step, and would refuse the grey pixels that Task 2d scores
Distribution.set_default_validate_args(False)


def between(raw: Tensor, low: float, high: float) -> Tensor:
    """Map any real to (low, high), evenly on the logarithmic scale; low and high are positive."""
    return torch.exp(math.log(low) + math.log(high / low) * torch.sigmoid(raw))


class Likelihood(nn.Module, ABC):
    """p(X_d|z) for one pixel, given the decoder's raw channels for that pixel. It may have weights of its own."""

    channels: int  # that the decoder returns per pixel
    objective = "ELBO"  # the name of what is maximised
    grey_levels = True  # whether log_mass is there: p(X|z) says how probable each grey level is
    independent = True  # whether pixels are independent given z; else there is no mean image in closed form
    shows = "samples"  # what a figure shows of p(X|z): "samples", or "means" where the task allows them

    @abstractmethod
    def p_x(self, raw: Tensor) -> Distribution:
        """raw (B, C, 28, 28), any reals, to the distribution with batch shape (B, 1, 28, 28)."""

    def observe(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1] as the values that p_x scores."""
        return x

    def render(self, value: Tensor) -> Tensor:
        """A sample or a mean of p_x as pixels; clipped to [0, 1], for display, where p_x reaches further."""
        return value.clamp(0, 1)

    def log_prob(self, p_x: Distribution, x: Tensor) -> Tensor:
        """log p(x_d|z), (B, 1, 28, 28), for pixels x (B, 1, 28, 28) in [0, 1]."""
        return p_x.log_prob(self.observe(x))

    def sample(self, p_x: Distribution) -> Tensor:
        """Images x' ~ p(X|z), (B, 1, 28, 28)."""
        return self.render(p_x.sample())

    def mean(self, p_x: Distribution) -> Tensor:
        """Images of E[X|z], (B, 1, 28, 28)."""
        return self.render(p_x.mean)

    def show(self, p_x: Distribution) -> Tensor:
        """Images for a figure, (B, 1, 28, 28): samples x' ~ p(X|z), or means (Task 2d's hint)."""
        return self.mean(p_x) if self.shows == "means" else self.sample(p_x)

    def log_mass(self, p_x: Distribution, x: Tensor) -> Tensor:
        """log P(x_d is this one of the 256 grey levels), or, where observe joins levels, log P(its bin).

        (B, 1, 28, 28), by default log_prob itself, which is right for discrete distributions.
        """
        return self.log_prob(p_x, x)


class Gaussian(Likelihood):
    """Task 1: N(X_d | mu_d(z), sigma2_d(z)).

    mu is kept in (0, 1) and sigma in (sigma_min, 1/2), because no variable on [0, 1] has a mean or a standard
    deviation outside. The likelihood has no upper bound as sigma goes to 0, so a floor decides what the ELBO can
    become: sigma_min is one grey step, since the data cannot tell finer differences apart.
    """

    channels = 2

    def __init__(self, sigma_min: float = RESOLUTION):
        super().__init__()
        self.sigma_min = sigma_min

    def p_x(self, raw: Tensor) -> Normal:
        mu = torch.sigmoid(raw[:, 0:1])
        sigma = between(raw[:, 1:2], self.sigma_min, 0.5)
        return Normal(mu, sigma)

    def log_mass(self, p_x: Normal, x: Tensor) -> Tensor:
        return log_normal_mass(p_x, x)


class BetaLikelihood(Likelihood):
    """Task 2b: Beta(X_d | alpha_d(z), beta_d(z)) of pixels squeezed into [eps, 1 - eps].

    A density at exactly 0 or 1 is 0 or infinite, so pixels are moved a little, everywhere the same. As probabilities of
    grey levels, models with eps = 1e-6 are better than with 1e-4 or 1/512 (report/studies/variants.py), and much less
    could not be told from 0 next to 1 in single precision. alpha and beta are free in (e^-8, e^8): values under 1 allow
    U shapes, and the upper end makes the narrowest symmetric Beta about 1.7 grey steps wide, which bounds the density
    as sigma_min does for the Gaussian.
    """

    channels = 2

    def __init__(self, eps: float = EPS):
        super().__init__()
        self.eps = eps

    def p_x(self, raw: Tensor) -> Beta:
        alpha, beta = between(raw, math.exp(-8), math.exp(8)).split(1, dim=1)
        return Beta(alpha, beta)

    def observe(self, x: Tensor) -> Tensor:
        return self.eps + (1 - 2 * self.eps) * x

    def render(self, value: Tensor) -> Tensor:
        return ((value - self.eps) / (1 - 2 * self.eps)).clamp(0, 1)

    def log_mass(self, p_x: Beta, x: Tensor) -> Tensor:
        return log_beta_mass(p_x, self.observe(x), width=(1 - 2 * self.eps) * RESOLUTION)


class CategoricalLikelihood(Likelihood):
    """Task 2c: Cat(X_d | pi_d(z)) over k bins of equal width; observe discretises, and x = 1 belongs to the last bin.

    k = 32: as a model of grey levels it is better than fewer bins, and 64 gain little more for twice the outputs
    (report/studies/variants.py); a picture moves by at most 1/32, which nobody sees. Bin j is shown as the grey
    value j / (k - 1), which lies within bin j, keeps black black and white white.
    """

    def __init__(self, bins: int = 32):
        super().__init__()
        self.channels = bins

    def p_x(self, raw: Tensor) -> Categorical:
        logits = raw.unsqueeze(1).movedim(2, -1)  # (B, k, 28, 28) -> (B, 1, 28, 28, k)
        return Categorical(logits=logits)

    def observe(self, x: Tensor) -> Tensor:
        """Discretise pixels: their bins 0 to k - 1, int64."""
        return (x * self.channels).long().clamp_max(self.channels - 1)

    def render(self, value: Tensor) -> Tensor:
        return value / (self.channels - 1)

    def mean(self, p_x: Categorical) -> Tensor:
        return self.render((p_x.probs * torch.arange(self.channels, device=p_x.probs.device)).sum(-1))


class BernoulliLikelihood(Likelihood):
    """Task 2d: Bern(B_d | pi_d(z)), scored by the cross-entropy x log pi + (1 - x) log(1 - pi) of grey pixels x.

    That is log_prob of a Bernoulli at a value between 0 and 1. It is a bound on log p(b) for binary images b ~ p(B|x),
    not a probability of grey levels, so grey_levels is False and log_mass means nothing.
    """

    channels = 1
    objective = "objective of 2d"
    grey_levels = False
    shows = "means"

    def p_x(self, raw: Tensor) -> Bernoulli:
        return Bernoulli(logits=raw)


class Inflated(Likelihood):
    """Task 2e: the zero/one-inflated mixture of two beta-binomials, a probability mass over the 256 grey levels.

    One component is free for the narrow peak of saturated ink (a third of all pixels that are not black have the
    levels 252 to 254), the other for the flat spread of a stroke's edges.
    """

    channels = 7

    def p_x(self, raw: Tensor) -> InflatedBetaBinomial:
        black, white, second, *shapes = raw.split(1, dim=1)
        shapes[0] = shapes[0] + 1  # so that the components do not start as one
        shapes = between(torch.stack(shapes), math.exp(-8), math.exp(8))  # alpha and beta of one, then of the other
        return InflatedBetaBinomial(black, white, second, *shapes.unflatten(0, (2, 2)).unbind(1))

    def log_mass(self, p_x: InflatedBetaBinomial, x: Tensor) -> Tensor:
        return self.log_prob(p_x.double(), x.double())


class Neighbours(Likelihood):
    """Task 2e, beyond independent pixels: each pixel is Inflated, given z and the earlier pixels near it.

    E[X|z] would be a sum over all images, so there is no mean.
    """

    channels = 32  # hidden numbers; the context makes the pixel's seven of them
    independent = False

    def __init__(self):
        super().__init__()
        self.pixel = Inflated()
        self.context = Context(self.channels, self.pixel.channels)

    def p_x(self, raw: Tensor) -> NeighbouringPixels:
        return NeighbouringPixels(raw, self.context, self.pixel.p_x)

    def log_mass(self, p_x: NeighbouringPixels, x: Tensor) -> Tensor:
        return self.pixel.log_mass(p_x.given(x), x)


LIKELIHOODS: dict[str, Callable[..., Likelihood]] = {
    "gaussian": Gaussian,
    "beta": BetaLikelihood,
    "categorical": CategoricalLikelihood,
    "bernoulli": BernoulliLikelihood,
    "inflated": Inflated,
    "neighbours": Neighbours,
}
