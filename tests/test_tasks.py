"""What the scripts of Tasks 3 and 4 compute, on models whose answers are known."""

import torch
from conftest import linear_vae
from torch.distributions import LowRankMultivariateNormal, Normal

from common.inference import infer
from task_3.interpolate import different_pairs, spherical
from task_4.complete import predict
from task_4.posterior import exact_elbo, exact_log_p


def test_pairs_have_different_labels_and_no_image_twice():
    first, second = different_pairs(torch.tensor([1, 1, 2, 3, 4, 4, 5, 6, 7]), 5)
    assert first.tolist() == [2, 6]
    assert second.tolist() == [3, 7]


def test_halfway_on_the_arc():
    z, z_prime = torch.eye(2) * 3
    middle = spherical(z.unsqueeze(0), z_prime.unsqueeze(0))
    torch.testing.assert_close(middle, torch.full((1, 2), 3 / 2**0.5))
    torch.testing.assert_close(spherical(z.unsqueeze(0), z.unsqueeze(0)), z.unsqueeze(0))


def test_quadrature_is_exact_for_a_linear_model():
    vae, directions, exact = linear_vae(torch.tensor([3.0, 1.0]))
    x = exact.sample((5,)).clamp(0, 1).view(5, 1, 28, 28)
    log_p = exact.log_prob(x.flatten(1)).double()
    found = torch.stack([exact_log_p(vae, image) for image in x])
    torch.testing.assert_close(found, log_p, atol=5e-3, rtol=0)
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
    found = [infer(vae, x, left, starts=[start]) for start in range(2)]
    _, weights, images = predict(vae, x, left, found, draws=2000)
    chosen = left.flatten()
    half = torch.full((392,), 0.5), directions[chosen], torch.full((392,), 0.09)
    log_p = LowRankMultivariateNormal(*half).log_prob(x.flatten(1)[:, chosen])
    sampled = weights.logsumexp(1) - torch.log(torch.tensor(weights.shape[1]))
    torch.testing.assert_close(sampled, log_p, atol=0.05, rtol=0)
    assert images.shape == x.shape
