"""Task 2e: the zero/one-inflated mixture of two beta-binomials, a distribution over the 256 grey levels."""

import math

from common.grey_levels import LEVELS, level_of

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Beta, Distribution
from torch.nn.functional import logsigmoid


class InflatedBetaBinomial(Distribution):
    """Black and white have probabilities of their own; the levels 1 to 254 between them a mix of two beta-binomials.

    Logits of black, of white if not black, and of the second component have the batch shape; alphas and betas, with
    which 253 trials give level - 1, are (2, *batch shape), for both components. The 256 probabilities sum to 1.
    """

    trials = LEVELS - 3

    def __init__(self, black: Tensor, white: Tensor, second: Tensor, alphas: Tensor, betas: Tensor):
        self.black, self.white, self.second, self.alphas, self.betas = black, white, second, alphas, betas
        super().__init__(black.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        log_grey = logsigmoid(-self.black) + logsigmoid(-self.white)  # neither black nor white
        level = level_of(x)
        inner = ((level > 0) & (level < LEVELS - 1)).flatten().nonzero().squeeze(1)  # one in five; the costly part

        def pick(part: Tensor) -> Tensor:
            return part.flatten(-4).index_select(-1, inner)

        v = pick(level).to(x.dtype) - 1  # successes
        first, second = log_sequence(v, self.trials, pick(self.alphas), pick(self.betas))
        logit = pick(self.second)
        log_p = torch.logaddexp(logsigmoid(-logit) + first, logsigmoid(logit) + second)
        log_p = pick(log_grey) + log_ways(v, self.trials) + log_p
        log_end = torch.where(level == 0, logsigmoid(self.black), logsigmoid(-self.black) + logsigmoid(self.white))
        return log_end.flatten().index_copy(0, inner, log_p).view_as(x)

    def sample(self) -> Tensor:
        def draw(logits: Tensor) -> Tensor:
            return Bernoulli(logits=logits).sample().bool()

        first, second = Beta(self.alphas, self.betas).sample()
        p = torch.where(draw(self.second), second, first)
        grey = (torch.binomial(torch.full_like(p, self.trials), p) + 1) / (LEVELS - 1)
        return torch.where(draw(self.black), 0.0, torch.where(draw(self.white), 1.0, grey))

    def double(self) -> "InflatedBetaBinomial":
        """The same in double precision, where differences of lgamma lose nothing."""
        parts = (self.black, self.white, self.second, self.alphas, self.betas)
        return InflatedBetaBinomial(*(part.double() for part in parts))

    @property
    def mean(self) -> Tensor:
        first, second = self.alphas / (self.alphas + self.betas)
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
    """log P(one order of v successes) if their probability is Beta distributed; with log_ways the beta-binomial's."""
    return log_beta(v + alpha, trials - v + beta) - log_beta(alpha, beta)
