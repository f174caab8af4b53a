"""The measures: against formulas, and as probabilities."""

import math

from common import evaluation as ev
from common.grey_levels import LEVELS, level_frequencies
from common.likelihoods import LIKELIHOODS
from report.studies.classifier import frechet_distance, label_scores
from report.studies.completions import predict
from report.studies.posterior import exact_elbo, exact_log_p
from task_3.interpolate import different_pairs
from task_4.inference import Psi, infer

import pytest
import torch
from conftest import GREY, linear_vae, small_vae
from torch.distributions import Normal, kl_divergence


def test_bits_per_dimension():
    assert ev.mean_and_se(ev.bits_per_dimension(torch.full((10,), -784 * math.log(256.0)))) == {
        "mean": pytest.approx(8.0),
        "se": pytest.approx(0.0),
    }


@pytest.mark.parametrize("name", GREY)
def test_grey_score_is_a_probability_of_the_levels(name, images):
    """When one pixel takes all of its levels in turn, the probabilities add up to those of the other pixels."""
    likelihood = LIKELIHOODS[name]()
    score = ev.grey_score(likelihood, images)
    p_x = likelihood.p_x(torch.randn(1, likelihood.channels, 28, 28).expand(LEVELS, -1, -1, -1))
    x = images[:1].expand(LEVELS, -1, -1, -1).clone()
    x[:, 0, 5, 5] = torch.linspace(0, 1, LEVELS)
    total = score(p_x, x).double().logsumexp(0)
    x[:, 0, 5, 5] = images[0, 0, 5, 5]
    counts = level_frequencies(images).sum(dim=(1, 2, 3))
    bins = likelihood.observe(torch.linspace(0, 1, LEVELS))
    share = counts / torch.stack([counts[bins == value].sum() for value in bins])
    pixel = likelihood.log_mass(p_x, x)[0, 0, 5, 5] + share[(images[0, 0, 5, 5] * 255).round().long()].log()
    torch.testing.assert_close(total, (score(p_x, x)[0] - pixel).double(), atol=5e-3, rtol=0)


def test_more_importance_samples_tighten_the_bound(images):
    vae = small_vae("bernoulli")
    score = ev.own_score(vae.likelihood)
    weights = ev.log_weights(vae, images, vae.q_z(images), 200, score, block=30)
    assert weights.shape == (200, 10)
    bounds = [ev.importance_bound(weights, samples) for samples in (1, 200)]
    assert torch.equal(bounds[0], weights[0])
    assert (bounds[1] >= weights.mean(0) - 1e-4).all()  # Jensen
    elbo = torch.stack([ev.elbo_by(vae, images, score).elbo for _ in range(300)]).mean(0)
    torch.testing.assert_close(weights.mean(0), elbo.detach(), atol=1.0, rtol=0.01)


def test_the_elbo_behind_the_bits_has_its_kl_term(images):
    vae = small_vae("bernoulli")
    found = ev.elbo_by(vae, images, ev.own_score(vae.likelihood), batch_size=3)
    torch.testing.assert_close(found.kl, kl_divergence(vae.q_z(images), Normal(0.0, 1.0)).sum(1))
    assert torch.equal(found.elbo, found.log_likelihood - found.kl)
    assert (found.kl > 0).all()


def test_frechet_distance_of_gaussians_is_the_formula():
    a = torch.randn(50_000, 2) * torch.tensor([1.0, 2.0])
    b = torch.randn(50_000, 2) * torch.tensor([3.0, 1.0]) + torch.tensor([1.0, 0.0])
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 1, rel=0.03)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


def test_label_scores_of_clear_balanced_and_of_unclear_digits():
    clear = torch.eye(10).repeat(5, 1)
    assert label_scores(clear)["inception_score"] == pytest.approx(10)
    assert label_scores(torch.full((50, 10), 0.1))["inception_score"] == pytest.approx(1)
    assert label_scores(clear[:1])["entropy_together"] == pytest.approx(0)


def test_pairs_have_different_labels_and_no_image_twice():
    first, second = different_pairs(torch.tensor([1, 1, 2, 3, 4, 4, 5, 6, 7]), 5)
    assert first.tolist() == [2, 6]
    assert second.tolist() == [3, 7]


def test_quadrature_is_exact_for_a_linear_model():
    vae, directions, exact = linear_vae(torch.tensor([3.0, 1.0]))
    x = exact.sample((5,)).clamp(0, 1).view(5, 1, 28, 28)
    log_p = exact.log_prob(x.flatten(1)).double()
    torch.testing.assert_close(torch.stack([exact_log_p(vae, image) for image in x]), log_p, atol=5e-3, rtol=0)
    variance = 1 / (1 + directions.square().sum(0) / 0.09)
    posterior = Normal((x.flatten(1) - 0.5) @ directions / 0.09 * variance, variance.sqrt().expand(5, 2))
    torch.testing.assert_close(exact_elbo(vae, x, posterior).double(), log_p, atol=5e-3, rtol=0)
    off = Normal(posterior.mean, 2 * posterior.stddev)  # KL(q || posterior) = 2 (3/2 - log 2)
    missing = 2 * (1.5 - torch.log(torch.tensor(2.0))).expand(5).double()
    torch.testing.assert_close(log_p - exact_elbo(vae, x, off).double(), missing, atol=5e-3, rtol=0)


def test_weights_of_completions_give_the_likelihood_of_the_left_half():
    vae, directions, exact = linear_vae(torch.tensor([3.0, 2.0]))
    x = exact.sample((4,)).clamp(0, 1).view(4, 1, 28, 28)
    left = (torch.arange(28) < 14).expand(1, 1, 28, 28)
    found = [[Psi(*row) for row in zip(*ranked.psi, strict=True)] for ranked in infer(vae, x, left, keep=2)]
    _, weights, images = predict(vae, x, [list(row) for row in zip(*found, strict=True)], draws=2000)
    chosen = left.flatten()
    half = torch.distributions.LowRankMultivariateNormal(
        torch.full((392,), 0.5), directions[chosen], torch.full((392,), 0.09)
    )
    sampled = weights.logsumexp(1) - math.log(weights.shape[1])
    torch.testing.assert_close(sampled, half.log_prob(x.flatten(1)[:, chosen]), atol=0.05, rtol=0)
    assert images.shape == x.shape
