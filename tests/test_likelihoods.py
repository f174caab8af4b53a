"""Every p(X|z) against formulas and scipy in float64, at extreme decoder outputs, and as a distribution."""

import math

from common.config import Config
from common.grey_levels import LEVELS
from common.inflated import log_sequence, log_ways
from common.likelihoods import EPS, LIKELIHOODS, Neighbours
from common.vae import LEFT
from report.studies.variants import GreyGaussian

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from conftest import ALL, GREY, INDEPENDENT
from torch.distributions import Beta

LEVEL = torch.arange(LEVELS) / (LEVELS - 1)


def some_raw(likelihood, batch=4, scale=1.5, side=28):
    return torch.randn(batch, likelihood.channels, side, side) * scale


def all_levels(likelihood, pixels=5):
    """p_x with batch shape (256, 1, 1, pixels) for random raw channels, and the 256 levels in that shape."""
    raw = some_raw(likelihood, 1, side=1).expand(LEVELS, -1, -1, pixels) * torch.linspace(-1, 1, pixels)
    return likelihood.p_x(raw), LEVEL.view(-1, 1, 1, 1).expand(-1, 1, 1, pixels)


def one_of_each_bin(likelihood):
    """True for one level of each bin where observe joins levels, else for all: (256,)."""
    return torch.cat([torch.ones(1, dtype=torch.bool), likelihood.observe(LEVEL).diff() != 0])


def numpy(tensor):
    return tensor.double().numpy()


def test_gaussian_is_the_formula_and_scipys(images):
    p_x = LIKELIHOODS["gaussian"]().p_x(some_raw(LIKELIHOODS["gaussian"](), len(images)))
    mu, sigma2 = p_x.loc.double(), p_x.scale.double() ** 2
    formula = -0.5 * math.log(2 * math.pi) - 0.5 * sigma2.log() - (images - mu) ** 2 / (2 * sigma2)
    torch.testing.assert_close(p_x.log_prob(images).double(), formula, rtol=1e-4, atol=1e-4)
    reference = scipy.stats.norm.logpdf(numpy(images), numpy(p_x.loc), numpy(p_x.scale))
    torch.testing.assert_close(formula, torch.from_numpy(reference))


def test_beta_is_the_formula_and_scipys(images):
    likelihood = LIKELIHOODS["beta"]()
    p_x = likelihood.p_x(some_raw(likelihood, len(images), scale=0.5))
    alpha, beta = p_x.concentration1.double(), p_x.concentration0.double()
    x = likelihood.observe(images).double()
    torch.testing.assert_close(x, EPS + (1 - 2 * EPS) * images.double(), rtol=0, atol=1e-7)  # in single precision
    formula = torch.lgamma(alpha + beta) - torch.lgamma(alpha) - torch.lgamma(beta)
    formula += (alpha - 1) * x.log() + (beta - 1) * (1 - x).log()
    torch.testing.assert_close(likelihood.log_prob(p_x, images).double(), formula, rtol=1e-3, atol=1e-3)
    reference = scipy.stats.beta.logpdf(numpy(x), numpy(alpha), numpy(beta))
    torch.testing.assert_close(formula, torch.from_numpy(reference))


def test_categorical_is_the_formula_and_its_bins_are_equal(images):
    likelihood = LIKELIHOODS["categorical"]()
    k, raw = likelihood.channels, some_raw(likelihood, len(images))
    bins = (images * k).floor().clamp_max(k - 1).long()
    formula = (raw.gather(1, bins) - raw.logsumexp(1, keepdim=True)).double()
    torch.testing.assert_close(likelihood.log_prob(likelihood.p_x(raw), images).double(), formula, atol=1e-5, rtol=1e-5)
    assert torch.bincount(likelihood.observe(LEVEL)).tolist() == [256 // k] * k
    assert likelihood.observe(torch.tensor([0.0, 1.0])).tolist() == [0, k - 1]
    grey = likelihood.render(torch.arange(k))
    assert torch.equal(likelihood.observe(grey), torch.arange(k))  # each bin's grey value lies in it
    assert grey[0] == 0
    assert grey[-1] == 1


def test_bernoulli_is_the_cross_entropy(images):
    likelihood = LIKELIHOODS["bernoulli"]()
    raw = some_raw(likelihood, len(images))
    pi, x = torch.sigmoid(raw.double()), images.double()
    formula = x * pi.log() + (1 - x) * (1 - pi).log()
    torch.testing.assert_close(likelihood.log_prob(likelihood.p_x(raw), images).double(), formula, rtol=1e-5, atol=1e-5)


def test_inflated_is_the_formula_with_scipys_beta_binomial():
    likelihood = LIKELIHOODS["inflated"]()
    p_x, x = all_levels(likelihood)
    black, white, second = (numpy(torch.sigmoid(part)) for part in (p_x.black, p_x.white, p_x.second))
    level = numpy(x * 255).round()
    parts = [
        scipy.stats.betabinom.pmf(level - 1, 253, numpy(a), numpy(b))
        for a, b in zip(p_x.alphas, p_x.betas, strict=True)
    ]
    expected = (1 - black) * (1 - white) * ((1 - second) * parts[0] + second * parts[1])
    expected[0], expected[-1] = black[0], ((1 - black) * white)[-1]
    torch.testing.assert_close(p_x.log_prob(x).double().exp(), torch.from_numpy(expected), rtol=2e-3, atol=1e-6)


def test_beta_binomial_against_scipy():
    v = torch.arange(254.0, dtype=torch.float64)
    for alpha, beta in ((0.01, 0.02), (1.0, 1.0), (3.5, 80.0), (900.0, 20.0)):
        mine = log_ways(v, 253) + log_sequence(v, 253, torch.tensor(alpha).double(), torch.tensor(beta).double())
        reference = scipy.stats.betabinom.logpmf(v.numpy(), 253, alpha, beta)
        torch.testing.assert_close(mine, torch.from_numpy(reference), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in GREY if name in INDEPENDENT])
def test_masses_of_the_levels_or_bins_sum_to_one(name):
    likelihood = LIKELIHOODS[name]()
    p_x, x = all_levels(likelihood)
    mass = likelihood.log_mass(p_x, x).double().exp()  # (256, 1, 1, pixels)
    total = mass[one_of_each_bin(likelihood)].sum(0)
    torch.testing.assert_close(total, torch.ones(1, 1, 5).double(), atol=2e-3, rtol=0)


def test_a_gaussian_on_grey_levels_learns_a_mean_beyond_black():
    likelihood = GreyGaussian()
    p_x, x = all_levels(likelihood)
    torch.testing.assert_close(likelihood.log_prob(p_x, x).exp().sum(0), torch.ones(1, 1, 5))
    raw = torch.zeros(1, 2, 1, 1, requires_grad=True)
    likelihood.log_prob(likelihood.p_x(raw), torch.zeros(1, 1, 1, 1)).sum().backward()
    assert raw.grad[0, 0] < 0  # black is more probable below 0


def test_gaussian_mass_against_scipy():
    likelihood = LIKELIHOODS["gaussian"]()
    p_x, x = all_levels(likelihood)
    edges = numpy(torch.arange(255) + 0.5).reshape(-1, 1, 1, 1) / 255
    cdf = scipy.stats.norm.cdf(edges, numpy(p_x.loc[:1]), numpy(p_x.scale[:1]))
    expected = torch.from_numpy(cdf).diff(dim=0, prepend=torch.zeros(1, 1, 1, 5), append=torch.ones(1, 1, 1, 5))
    torch.testing.assert_close(likelihood.log_mass(p_x, x).exp(), expected, atol=1e-9, rtol=1e-5)


def test_gaussian_masses_far_from_the_centre_are_finite_and_below_the_others():
    likelihood = LIKELIHOODS["gaussian"]()
    p_x = likelihood.p_x(torch.tensor([-9.0, -9.0]).view(1, 2, 1, 1).expand(256, 2, 1, 1))
    log_mass = likelihood.log_mass(p_x, LEVEL.view(-1, 1, 1, 1)).flatten()
    assert log_mass.isfinite().all()
    assert (log_mass[1:].diff() < 0).all()


@pytest.mark.parametrize(
    ("alpha", "beta", "eps"),
    [
        *((*shape, eps) for shape in ((2900, 30), (30, 2900), (2900, 2900), (150, 2)) for eps in (EPS, 1 / 512)),
        *((*shape, 0.1) for shape in ((2900, 30), (30, 2900), (2900, 2900), (1500, 2))),
    ],
)
def test_beta_masses_beyond_the_range_of_floats_are_those_of_binomial_tails(alpha, beta, eps):
    """I_x(a, b) of whole a and b is the probability that of a + b - 1 throws, each a hit with x, at least a hit."""
    likelihood = LIKELIHOODS["beta"](eps)
    hits = np.arange(alpha + beta)  # of alpha + beta - 1 throws
    edges = likelihood.observe(numpy(torch.arange(255) + 0.5).reshape(-1, 1) / 255)
    throws = scipy.stats.binom.logpmf(hits, alpha + beta - 1, edges)
    below = np.concatenate([[-np.inf], scipy.special.logsumexp(throws[:, alpha:], axis=1), [0.0]])
    above = np.concatenate([[0.0], scipy.special.logsumexp(throws[:, :alpha], axis=1), [-np.inf]])
    left = below[1:] < above[:-1]  # in the smaller tail, where the difference of both is accurate
    outer, inner = np.where(left, below[:-1], above[1:]), np.where(left, below[1:], above[:-1])
    expected = torch.from_numpy(inner + np.log1p(-np.exp(outer - inner)))
    p_x = Beta(*torch.tensor([alpha, beta]).double().view(2, 1, 1, 1, 1).expand(2, 256, 1, 1, 1))
    found = likelihood.log_mass(p_x, LEVEL.double().view(-1, 1, 1, 1)).flatten()
    assert (expected < -700).any()
    torch.testing.assert_close(found, expected, atol=0.02, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [0.0, 1.0, 77 / 255, 1e-4, 1 - 1e-4])
def test_extreme_outputs_give_finite_values_and_gradients(name, value):
    likelihood = LIKELIHOODS[name]()
    corners = torch.cartesian_prod(*[torch.tensor([-50.0, 0.0, 50.0])] * min(likelihood.channels, 7))
    padding = torch.zeros(len(corners), likelihood.channels - corners.view(len(corners), -1).shape[1])
    raw = torch.cat([corners.view(len(corners), -1), padding], dim=1)[:, :, None, None].requires_grad_()
    log_p = likelihood.log_prob(likelihood.p_x(raw), torch.full((len(raw), 1, 1, 1), value))
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("name", INDEPENDENT)
def test_samples_are_images_with_the_mean(name):
    likelihood = LIKELIHOODS[name]()
    raw = some_raw(likelihood, 1, scale=0.7, side=4).expand(20_000, -1, -1, -1)
    if name == "gaussian":  # so narrow that clipping for display changes nothing
        raw = torch.cat([raw[:, :1], raw[:, 1:] * 0 - 1], dim=1)
    p_x = likelihood.p_x(raw)
    x = likelihood.sample(p_x)
    assert x.shape == (20_000, 1, 4, 4)
    assert x.min() >= 0
    assert x.max() <= 1
    torch.testing.assert_close(x.mean(0), likelihood.mean(p_x)[0], atol=0.02, rtol=0)


@pytest.mark.parametrize("name", [name for name in GREY if name in INDEPENDENT])
def test_samples_have_the_frequencies_of_the_masses(name):
    likelihood = LIKELIHOODS[name]()
    raw = some_raw(likelihood, 1, scale=0.7, side=1)
    x = likelihood.sample(likelihood.p_x(raw.expand(50_000, -1, -1, -1)))
    mass = likelihood.log_mass(likelihood.p_x(raw.expand(256, -1, -1, -1)), LEVEL.view(-1, 1, 1, 1)).exp().flatten()
    mass = torch.where(one_of_each_bin(likelihood), mass, 0.0)
    shown = likelihood.render(likelihood.observe(LEVEL))  # the level itself, or the grey value of its bin
    for low, high in ((-1.0, 0.0), (0.0, 0.2), (0.2, 0.6), (0.6, 1.0)):  # black alone first
        expected = mass[(shown > low) & (shown <= high)].sum()
        share = ((x > low + 0.5 / 255) & (x <= high + 0.5 / 255)).float().mean()
        assert abs(float(share) - float(expected)) < 0.015


def test_constants_have_the_same_default_here_and_in_the_settings():
    floor = Config("gaussian", sigma_min=0.05).make_likelihood().p_x(torch.full((1, 2, 1, 1), -80.0)).scale
    assert floor.item() == pytest.approx(0.05)
    assert Config("categorical", bins=16).make_likelihood().channels == 16
    assert Config("categorical").bins == LIKELIHOODS["categorical"]().channels
    assert Config("beta").eps == LIKELIHOODS["beta"]().eps
    assert Config("gaussian").sigma_min == LIKELIHOODS["gaussian"]().sigma_min


@pytest.fixture
def neighbours():
    """With weights that matter."""
    likelihood = Neighbours()
    for parameter in likelihood.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return likelihood.requires_grad_(False)


@pytest.mark.parametrize("shape", [(1, 2), (2, 1)])
def test_neighbours_give_all_images_of_two_pixels_one_in_total(neighbours, shape):
    x = torch.cartesian_prod(LEVEL, LEVEL).view(-1, 1, *shape)  # (65536, 1, ...)
    raw = some_raw(neighbours, 1)[..., : shape[0], : shape[1]]
    log_p = neighbours.log_mass(neighbours.p_x(raw.expand(len(x), -1, -1, -1)), x).sum(dim=(1, 2, 3))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    drawn = neighbours.sample(neighbours.p_x(raw.expand(20_000, -1, -1, -1)))
    for dark in (LEVEL < 0.3, LEVEL == 0):  # both pixels together: as often as the masses say
        expected = log_p.exp().view(LEVELS, LEVELS)[dark][:, dark].sum().item()
        share = (drawn <= LEVEL[dark].max()).flatten(1).all(dim=1).double().mean().item()
        assert share == pytest.approx(expected, abs=0.015)


def test_neighbours_see_no_later_pixel_but_earlier_ones(neighbours, images):
    x = images[:1]
    p_x = neighbours.p_x(some_raw(neighbours, 1))
    before = neighbours.log_prob(p_x, x)[0, 0]
    for row, column in ((0, 0), (27, 27), (5, 13), (14, 0)):
        other = x.clone()
        other[0, 0, row, column] = 1 - other[0, 0, row, column]
        changed = {(c, r) for r, c in (neighbours.log_prob(p_x, other)[0, 0] != before).nonzero().tolist()}
        beside = {(column + far, row + move) for far in (1, 2, 3) for move in range(-3, 4)}
        below = {(column, row + move) for move in range(4)}  # and itself; no other pixel, and none before it
        assert changed == {(c, r) for c, r in beside | below if c < 28 and 0 <= r < 28}
    right_black = torch.where(LEFT, x, 0.0)
    assert torch.equal(neighbours.log_prob(p_x, right_black)[..., :14], before[None, None, :, :14])


def test_neighbours_have_no_mean(neighbours):
    with pytest.raises(NotImplementedError):
        neighbours.mean(neighbours.p_x(some_raw(neighbours, 1)))
