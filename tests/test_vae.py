import math
from functools import partial

from common.evaluation import importance_bound, log_weights
from common.likelihoods import LIKELIHOODS
from common.training import evaluate
from common.vae import LEFT, VAE, Gaussians, Mixture, elbo, start_from_marginals
from task_4.inference import infer

import pytest
import torch
from conftest import ALL, SMALL, linear_vae, posterior_of, small_vae
from torch import nn
from torch.distributions import Independent, LowRankMultivariateNormal, Normal, kl_divergence


@pytest.mark.parametrize("name", ALL)
def test_shapes_and_parts_of_the_elbo(name, images):
    vae = small_vae(name)
    estimate = elbo(vae, images, vae.q_z(images))
    assert all(part.shape == (10,) for part in estimate)
    torch.testing.assert_close(estimate.elbo, estimate.log_likelihood - estimate.kl)
    torch.testing.assert_close(estimate.kl, kl_divergence(vae.q_z(images), Normal(0, 1)).sum(1))
    assert vae.likelihood.show(vae.p_x(torch.randn(5, 3))).shape == (5, 1, 28, 28)
    scored = evaluate(vae, images, batch_size=3, score=lambda p_x, x: torch.full_like(x, -1.0))
    torch.testing.assert_close(scored.elbo, -784 - estimate.kl)
    for batch_size in (4, 1):  # a value does not depend on it, nor on a ragged last batch
        torch.testing.assert_close(evaluate(vae, images, batch_size), evaluate(vae, images), rtol=1e-4, atol=1e-3)


def test_what_is_no_image_is_refused_with_its_shape_or_range(images):
    vae, q_z = small_vae("gaussian"), Normal(torch.zeros(10, 3), torch.ones(10, 3))
    for x in (images - 0.1, images * 255, images.index_fill(0, torch.tensor([3]), torch.nan)):
        for takes in (vae.q_z, partial(infer, vae)):
            with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
                takes(x)
    for x in (images[:0], images.flatten(1), images[0, 0], images[:, 0]):
        for takes in (vae.q_z, partial(elbo, vae, q_z=q_z)):
            with pytest.raises(ValueError, match=r"expected \(B, 1, 28, 28\)"):
                takes(x)


@pytest.mark.parametrize("name", ALL)
def test_mask_of_ones_changes_nothing_and_masked_pixels_do_not_count(name, images):
    vae, q_z, z = small_vae(name), Normal(torch.zeros(10, 3), torch.ones(10, 3)), torch.randn(10, 3)
    full = elbo(vae, images, q_z, z=z)
    assert torch.equal(full.elbo, elbo(vae, images, q_z, mask=torch.ones_like(LEFT), z=z).elbo)
    half = elbo(vae, images, q_z, mask=LEFT, z=z)
    other = torch.where(LEFT, images, images.flip(0).flip(3))
    assert torch.equal(half.elbo, elbo(vae, other, q_z, mask=LEFT, z=z).elbo)
    right = elbo(vae, images, q_z, mask=~LEFT, z=z)
    torch.testing.assert_close(half.log_likelihood + right.log_likelihood, full.log_likelihood, rtol=1e-4, atol=1e-2)
    assert torch.equal(half.kl, full.kl)  # the whole KL term


def test_evaluate_leaves_all_as_it_was_and_samples_z(images):
    vae = small_vae("bernoulli").train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    state = torch.get_rng_state()
    values = evaluate(vae, images).elbo
    assert torch.equal(state, torch.get_rng_state())
    assert vae.training
    assert not values.requires_grad
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    q_z = vae.q_z(images)
    assert not torch.allclose(values, elbo(vae, images, q_z, z=q_z.mean).elbo)


def test_untrained_objective_has_its_known_order(images):
    for name, bins in (("bernoulli", 2), ("categorical", 32)):
        found = evaluate(small_vae(name), images).log_likelihood.mean().item()
        assert found == pytest.approx(-784 * math.log(bins), rel=0.01)


def test_start_from_marginals_gives_each_pixel_its_mean():
    x = (torch.rand(2000, 1, 28, 28) < torch.linspace(0.05, 0.95, 28)).float()
    vae = small_vae("bernoulli")
    start_from_marginals(vae, x, steps=200)
    assert (torch.sigmoid(vae.decoder.bias) - x.mean(0)).abs().mean() < 0.03
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_patch_layers_are_strided_convolutions(images):
    encoder, decoder = small_vae("gaussian").encoder.net, small_vae("gaussian").decoder.net
    # a 3x3 convolution of 4x4 patches, as one convolution with a 12x12 kernel and stride 4
    kernel = nn.functional.pixel_shuffle(encoder[1].weight, 4)  # (4, 16, 3, 3) -> (4, 1, 12, 12)
    wide = nn.functional.conv2d(images, kernel, encoder[1].bias, stride=4, padding=4)
    torch.testing.assert_close(wide, encoder[1](encoder[0](images)), atol=1e-5, rtol=1e-4)
    # a 1x1 convolution and a shuffle, as one transposed convolution with a 4x4 kernel and stride 4
    h, last = torch.randn(2, 4, 7, 7), decoder[-2]
    kernel = last.weight[:, :, 0, 0].view(2, 4, 4, 4).permute(3, 0, 1, 2)
    wide = nn.functional.conv_transpose2d(h, kernel, stride=4)
    torch.testing.assert_close(wide, decoder[-1](last(h)), atol=1e-5, rtol=0)


def test_linear_model_reaches_the_closed_form_of_probabilistic_pca():
    vae, directions, exact = linear_vae(3.0, 2.0, 1.0)
    x = exact.sample((6,)).clamp(0, 1).view(6, 1, 28, 28)
    log_p = exact.log_prob(x.flatten(1))
    q_z = infer(vae, x)[0].psi.q_z()
    sampled = torch.stack([elbo(vae, x, q_z).elbo for _ in range(500)]).mean(0)
    torch.testing.assert_close(sampled, log_p, atol=0.3, rtol=0)
    weights = log_weights(vae, x, q_z, 2000, vae.likelihood.log_prob)
    torch.testing.assert_close(importance_bound(weights), log_p, atol=0.03, rtol=0)
    twice = log_weights(vae, x, [q_z, q_z], 1000, vae.likelihood.log_prob)  # a mixture of it and itself
    torch.testing.assert_close(importance_bound(twice), log_p, atol=0.03, rtol=0)
    torch.testing.assert_close(q_z.stddev, posterior_of(x, directions).stddev, rtol=0.25, atol=0)


def test_the_categoricals_encoder_sees_the_bins(images):
    vae = small_vae("categorical")
    within = (vae.likelihood.observe(images) + 0.5) / vae.likelihood.channels  # other grey values of the same bins
    assert torch.equal(vae.q_z(images).mean, vae.q_z(within).mean)
    assert not torch.equal(vae.q_z(images).mean, vae.q_z(images.flip(0)).mean)


def learned(vae, components, full):
    """The same model with a mixture as p(Z)."""
    vae.mixture = Mixture(components, vae.latent_dim, full)
    vae.mixture.log_sigma.data.uniform_(-0.5, 0.3)
    if full:
        vae.mixture.lower.data.uniform_(-0.5, 0.5)
    return vae


def test_gaussians_have_the_log_prob_of_independent_normals():
    normal = Normal(3 * torch.randn(5, 4), torch.full((5, 4), 0.01))
    z = normal.sample((2,)).unsqueeze(2)  # (2, 5, 1, 4), as a mixture asks for it; near a mean large terms cancel
    exact = Independent(Normal(normal.mean.double(), normal.stddev.double()), 1).log_prob(z.double())
    torch.testing.assert_close(Gaussians(normal, 1).log_prob(z).double(), exact, atol=1e-3, rtol=1e-5)


def test_kl_to_a_mixture_is_what_its_one_sample_says(images):
    vae = learned(small_vae("bernoulli"), 1, full=False)
    vae.mixture.mu.data.zero_()
    vae.mixture.log_sigma.data.zero_()  # of one component, N(0, I): the exact KL is known
    q_z = vae.q_z(images)
    sampled = vae.kl(q_z, q_z.sample((20_000,))).mean(0)
    torch.testing.assert_close(sampled, kl_divergence(q_z, Normal(0, 1)).sum(1), atol=0.03, rtol=0.02)


@pytest.mark.parametrize("full", [False, True])
def test_evidence_under_a_mixture_is_the_closed_form_of_a_linear_model(full):
    vae, directions, _ = linear_vae(3.0, 2.0)
    prior = learned(vae, 3, full).mixture
    prior.logits.data = torch.tensor([0.0, 1.0, -1.0])
    cholesky = prior.log_sigma.exp().diag_embed()
    cholesky[:, 1, 0] = prior.lower[:, 1, 0] if full else 0.0
    parts = LowRankMultivariateNormal(0.5 + prior.mu @ directions.T, directions @ cholesky, torch.full((3, 784), 0.09))
    x = parts.sample().clamp(0, 1).view(3, 1, 28, 28)
    each = parts.log_prob(x.flatten(1).unsqueeze(1)) + prior.logits.log_softmax(0)  # (3, 3)
    q_z = posterior_of(x, directions)
    wide = Normal(q_z.mean, 2 * q_z.stddev)
    bound = importance_bound(log_weights(vae, x, wide, 5000, vae.likelihood.log_prob))
    torch.testing.assert_close(bound, each.logsumexp(1).detach(), atol=0.1, rtol=0)
    assert vae.p_z.sample((7,)).shape == (7, 2)


def test_a_learned_prior_goes_where_the_latents_are(images):
    vae = VAE(LIKELIHOODS["bernoulli"](), **SMALL, components=4)
    optimiser = torch.optim.Adam(vae.mixture.parameters(), lr=0.05)
    q_z = Normal(torch.full((10, 3), 3.0), torch.full((10, 3), 0.1))
    for _ in range(200):
        optimiser.zero_grad()
        (-elbo(vae, images, q_z).elbo.mean()).backward()
        optimiser.step()
    torch.testing.assert_close(vae.p_z.mean, torch.full((3,), 3.0), atol=0.2, rtol=0)
    assert elbo(vae, images, q_z).kl.mean() < 1  # to N(0, I) it is 18
