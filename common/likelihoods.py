"""The choices of p(X|z): one class each. Everything else loops over LIKELIHOODS; names are for a task's own default.

A new likelihood is one class that says how many channels per pixel it wants from the decoder, how these become a
distribution, and what a pixel is to that distribution (observe) and back (render); and one entry in LIKELIHOODS.
"""

import math
from abc import ABC, abstractmethod

import torch
from scipy.special import betainc
from torch import Tensor
from torch.distributions import Bernoulli, Beta, Categorical, Distribution, Normal
from torch.nn.functional import logsigmoid

LEVELS = 256  # MNIST's pixels are the grey levels 0/255, 1/255, ..., 255/255
STEP = 1 / (LEVELS - 1)  # the distance of two levels: the resolution of the data


def between(raw: Tensor, low: float, high: float) -> Tensor:
    """Map any real to (low, high), evenly on the logarithmic scale; low and high are positive."""
    return torch.exp(math.log(low) + math.log(high / low) * torch.sigmoid(raw))


class Likelihood(ABC):
    """p(X_d|z) for one pixel, given the decoder's raw channels for that pixel."""

    channels: int  # that the decoder returns per pixel
    creep = 1  # an ELBO that creeps up for long needs so many times min_gain to count as progress
    objective = "ELBO"  # the name of what is maximised
    grey_levels = True  # whether log_mass is there: p(X|z) says how probable each grey level is
    images = "samples"  # what a figure shows of p(X|z): "samples", or "means" where the task allows them

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

    def log_mass(self, p_x: Distribution, x: Tensor) -> Tensor | None:
        """log P(x_d is this one of the 256 grey levels), or, where observe joins levels, log P(its bin).

        (B, 1, 28, 28), by default log_prob itself, which is right for discrete distributions. None where the model
        says nothing about grey levels.
        """
        return self.log_prob(p_x, x)


class Gaussian(Likelihood):
    """Task 1: N(X_d | mu_d(z), sigma2_d(z)).

    mu is kept in (0, 1) and sigma in (sigma_min, 1/2), because no variable on [0, 1] has a mean or a standard
    deviation outside. The likelihood has no upper bound as sigma goes to 0, so a floor decides what the ELBO can
    become: sigma_min is one grey step, since the data cannot tell finer differences apart.
    """

    channels = 2
    creep = 12  # a density gains as long as its peaks can get narrower

    def __init__(self, sigma_min: float = STEP):
        self.sigma_min = sigma_min

    def p_x(self, raw: Tensor) -> Normal:
        mu = torch.sigmoid(raw[:, 0:1])
        sigma = between(raw[:, 1:2], self.sigma_min, 0.5)
        return Normal(mu, sigma, validate_args=False)

    def log_mass(self, p_x: Normal, x: Tensor) -> Tensor:
        mu, sigma, x = p_x.loc.double(), p_x.scale.double(), x.double()
        low = torch.where(x <= 0, -torch.inf, (x - STEP / 2 - mu) / sigma)  # the tails belong to the end levels
        high = torch.where(x >= 1, torch.inf, (x + STEP / 2 - mu) / sigma)
        low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)  # into the accurate tail
        log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
        return log_high + torch.log1p(-torch.exp(log_low - log_high))


class BetaLikelihood(Likelihood):
    """Task 2b: Beta(X_d | alpha_d(z), beta_d(z)) of pixels squeezed into (0, 1).

    A density at exactly 0 or 1 is 0 or infinite, so each grey level v is moved to the midpoint of its cell,
    (v + 1/2) / 256; this is eps = 1/512, everywhere the same. alpha and beta are free in (e^-8, e^8): values under 1
    allow U shapes, and the upper end makes the narrowest symmetric Beta about 1.7 grey steps wide, which bounds the
    density as sigma_min does for the Gaussian.
    """

    channels = 2
    creep = 12  # as for the Gaussian

    def __init__(self, eps: float = 1 / (2 * LEVELS)):
        self.eps = eps

    def p_x(self, raw: Tensor) -> Beta:
        alpha, beta = between(raw, math.exp(-8), math.exp(8)).split(1, dim=1)
        return Beta(alpha, beta, validate_args=False)

    def observe(self, x: Tensor) -> Tensor:
        return self.eps + (1 - 2 * self.eps) * x

    def render(self, value: Tensor) -> Tensor:
        return ((value - self.eps) / (1 - 2 * self.eps)).clamp(0, 1)

    def log_mass(self, p_x: Beta, x: Tensor) -> Tensor:
        alpha, beta = p_x.concentration1.double(), p_x.concentration0.double()
        low = torch.where(x <= 0, 0.0, self.observe(x.double() - STEP / 2))  # the ends belong to the end levels
        high = torch.where(x >= 1, 1.0, self.observe(x.double() + STEP / 2))
        flip = low > alpha / (alpha + beta)  # by symmetry into the left tail, which is the accurate one
        alpha, beta = torch.where(flip, beta, alpha), torch.where(flip, alpha, beta)
        low, high = torch.where(flip, 1 - high, low), torch.where(flip, 1 - low, high)
        alpha, beta, low, high = (part.cpu().numpy() for part in (alpha, beta, low, high))
        mass = betainc(alpha, beta, high)
        inner = low > 0
        mass[inner] -= betainc(alpha[inner], beta[inner], low[inner])
        mass = torch.from_numpy(mass).to(x.device)
        # in tails beyond the range of floats: the density at the midpoint times the cell's width
        midpoint = self.log_prob(p_x, x).double() + math.log((1 - 2 * self.eps) * STEP)
        return torch.where(mass > 1e-300, mass.clamp_min(1e-300).log(), midpoint)


class CategoricalLikelihood(Likelihood):
    """Task 2c: Cat(X_d | pi_d(z)) over k bins of equal width; x = 1 belongs to the last.

    k = 8: three bits per pixel; a picture moves by at most 1/8 and the background and the ink keep bins of their own,
    while every bin still holds at least one percent of all pixels. Bin j is shown as the grey value j / (k - 1), which
    lies within bin j, keeps black black and white white.
    """

    creep = 2  # a mass over grey values gains for long, too, and its epochs take longest

    def __init__(self, k: int = 8):
        self.channels = k

    def p_x(self, raw: Tensor) -> Categorical:
        logits = raw.unsqueeze(1).movedim(2, -1)  # (B, k, 28, 28) -> (B, 1, 28, 28, k)
        return Categorical(logits=logits, validate_args=False)

    def observe(self, x: Tensor) -> Tensor:
        return (x * self.channels).long().clamp_max(self.channels - 1)

    def render(self, value: Tensor) -> Tensor:
        return value / (self.channels - 1)

    def mean(self, p_x: Categorical) -> Tensor:
        return self.render((p_x.probs * torch.arange(self.channels, device=p_x.probs.device)).sum(-1))


class BernoulliLikelihood(Likelihood):
    """Task 2d: Bern(B_d | pi_d(z)), scored by the cross-entropy x log pi + (1 - x) log(1 - pi) of grey pixels x.

    That is log_prob of a Bernoulli at a value between 0 and 1, so validation of the arguments is off. It is a bound
    on log p(b) for binary images b ~ p(B|x), not a probability of grey levels, so there is no log_mass.
    """

    channels = 1
    objective = "objective of 2d"
    grey_levels = False
    images = "means"

    def p_x(self, raw: Tensor) -> Bernoulli:
        return Bernoulli(logits=raw, validate_args=False)

    def log_mass(self, p_x: Bernoulli, x: Tensor) -> None:
        return None


class InflatedBetaBinomial(Distribution):
    """Black and white have probabilities of their own; the levels 1 to 254 between them a mix of two beta-binomials.

    All parameters have the batch shape: logits of black, of white if not black, and of the second component; each
    component's alpha and beta, with which 253 trials give level - 1. The 256 probabilities sum to 1.
    """

    trials = LEVELS - 3

    def __init__(self, black: Tensor, white: Tensor, second: Tensor, alphas: list[Tensor], betas: list[Tensor]):
        self.black, self.white, self.second, self.alphas, self.betas = black, white, second, alphas, betas
        super().__init__(black.shape, validate_args=False)

    def log_prob(self, x: Tensor) -> Tensor:
        log_grey = logsigmoid(-self.black) + logsigmoid(-self.white)  # neither black nor white
        level = (x * (LEVELS - 1)).round()
        inner = ((level > 0) & (level < LEVELS - 1)).flatten().nonzero().squeeze(1)  # one in five; the costly part

        def pick(part: Tensor) -> Tensor:
            return part.flatten().index_select(0, inner)

        v = pick(level) - 1  # successes
        first, second = (
            log_sequence(v, self.trials, pick(a), pick(b)) for a, b in zip(self.alphas, self.betas, strict=True)
        )
        logit = pick(self.second)
        log_p = torch.logaddexp(logsigmoid(-logit) + first, logsigmoid(logit) + second)
        log_p = pick(log_grey) + log_ways(v, self.trials) + log_p
        log_end = torch.where(level <= 0, logsigmoid(self.black), logsigmoid(-self.black) + logsigmoid(self.white))
        return log_end.flatten().index_copy(0, inner, log_p).view_as(x)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        def draw(logits: Tensor) -> Tensor:
            return Bernoulli(logits=logits, validate_args=False).sample(sample_shape).bool()

        first, second = (Beta(a, b).sample(sample_shape) for a, b in zip(self.alphas, self.betas, strict=True))
        p = torch.where(draw(self.second), second, first)
        grey = (torch.binomial(torch.full_like(p, self.trials), p) + 1) / (LEVELS - 1)
        return torch.where(draw(self.black), 0.0, torch.where(draw(self.white), 1.0, grey))

    def double(self) -> "InflatedBetaBinomial":
        """The same in double precision, where differences of lgamma lose nothing."""
        black, white, second, *shapes = (
            part.double() for part in (self.black, self.white, self.second, *self.alphas, *self.betas)
        )
        return InflatedBetaBinomial(black, white, second, shapes[:2], shapes[2:])

    @property
    def mean(self) -> Tensor:
        first, second = (a / (a + b) for a, b in zip(self.alphas, self.betas, strict=True))
        grey = (1 + self.trials * torch.lerp(first, second, torch.sigmoid(self.second))) / (LEVELS - 1)
        white = torch.sigmoid(self.white)
        return torch.sigmoid(-self.black) * (white + (1 - white) * grey)


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """The logarithm of the Beta function."""
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def log_ways(v: Tensor, trials: int) -> Tensor:
    """The logarithm of the number of orders of v successes in so many trials."""
    return -math.log(trials + 1) - log_beta(v + 1, trials - v + 1)


def log_sequence(v: Tensor, trials: int, alpha: Tensor, beta: Tensor) -> Tensor:
    """log P(one order of v successes in so many trials whose probability is Beta(alpha, beta) distributed).

    With log_ways added it is the beta-binomial's log P(v).
    """
    return log_beta(v + alpha, trials - v + beta) - log_beta(alpha, beta)


class Inflated(Likelihood):
    """Task 2e: the zero/one-inflated mixture of two beta-binomials, a probability mass over the 256 grey levels.

    One component is free for the narrow peak of saturated ink (a third of all pixels that are not black have the
    levels 252 to 254), the other for the flat spread of a stroke's edges.
    """

    channels = 7
    creep = 2  # as for the Categorical

    def p_x(self, raw: Tensor) -> InflatedBetaBinomial:
        black, white, second, *shapes = raw.split(1, dim=1)
        shapes[0] = shapes[0] + 1  # so that the components do not start as one
        alpha_1, beta_1, alpha_2, beta_2 = (between(shape, math.exp(-8), math.exp(8)) for shape in shapes)
        return InflatedBetaBinomial(black, white, second, [alpha_1, alpha_2], [beta_1, beta_2])

    def log_mass(self, p_x: InflatedBetaBinomial, x: Tensor) -> Tensor:
        return self.log_prob(p_x.double(), x.double())


LIKELIHOODS: dict[str, Likelihood] = {
    "gaussian": Gaussian(),
    "beta": BetaLikelihood(),
    "categorical": CategoricalLikelihood(),
    "bernoulli": BernoulliLikelihood(),
    "inflated": Inflated(),
}
