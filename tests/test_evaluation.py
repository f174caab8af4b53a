import math

import pytest
import torch
from conftest import small_vae

from common import evaluation as ev
from common.classifier import Classifier, label_probabilities, load_classifier, train_classifier
from common.errors import CheckpointError
from common.likelihoods import LEVELS, LIKELIHOODS
from common.vae import grey_level_frequencies

GREY = [name for name in LIKELIHOODS if name != "bernoulli"]


def test_bits_per_dimension():
    log_mass = torch.full((10,), -784 * math.log(256.0))
    assert ev.bits_per_dimension(log_mass) == {"mean": pytest.approx(8.0), "se": pytest.approx(0.0)}


@pytest.mark.parametrize("name", GREY)
def test_grey_score_is_a_probability_of_the_levels(name, images):
    """When one pixel takes all of its levels in turn, the probabilities add up to those of the other pixels."""
    likelihood = LIKELIHOODS[name]
    score = ev.grey_score(likelihood, images)
    p_x = likelihood.p_x(torch.randn(1, likelihood.channels, 28, 28).expand(LEVELS, -1, -1, -1))
    x = images[:1].expand(LEVELS, -1, -1, -1).clone()
    x[:, 0, 5, 5] = torch.linspace(0, 1, LEVELS)
    total = score(p_x, x).double().logsumexp(0)
    x[:, 0, 5, 5] = images[0, 0, 5, 5]
    counts = grey_level_frequencies(images).sum(dim=(1, 2, 3))
    bins = likelihood.observe(torch.linspace(0, 1, LEVELS))
    share = counts / torch.stack([counts[bins == value].sum() for value in bins])
    pixel = likelihood.log_mass(p_x, x)[0, 0, 5, 5] + share[(images[0, 0, 5, 5] * 255).round().long()].log()
    torch.testing.assert_close(total, (score(p_x, x)[0] - pixel).double(), atol=5e-3, rtol=0)


def test_more_importance_samples_tighten_the_bound(images):
    vae = small_vae("bernoulli")
    weights = ev.log_weights(vae, images, vae.q_z(images), 200, ev.own_score(vae.likelihood), block=30)
    assert weights.shape == (200, 10)
    bounds = [ev.importance_bound(weights, samples) for samples in (1, 200)]
    assert torch.equal(bounds[0], weights[0])
    assert (bounds[1] >= weights.mean(0) - 1e-4).all()  # Jensen
    elbo = torch.stack([ev.elbo_by(vae, images, ev.own_score(vae.likelihood)) for _ in range(300)]).mean(0)
    torch.testing.assert_close(weights.mean(0), elbo.detach(), atol=1.0, rtol=0.01)


def test_frechet_distance_of_gaussians_is_the_formula():
    a = torch.randn(50_000, 2) * torch.tensor([1.0, 2.0])
    b = torch.randn(50_000, 2) * torch.tensor([3.0, 1.0]) + torch.tensor([1.0, 0.0])
    assert ev.frechet_distance(a, b) == pytest.approx(1 + 4 + 1, rel=0.03)
    assert ev.frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


def test_label_scores_of_clear_balanced_and_of_unclear_digits():
    clear = torch.eye(10).repeat(5, 1)
    assert ev.label_scores(clear)["inception_score"] == pytest.approx(10)
    unclear = torch.full((50, 10), 0.1)
    assert ev.label_scores(unclear)["inception_score"] == pytest.approx(1)
    assert ev.label_scores(clear[:1])["entropy_together"] == pytest.approx(0)


def test_neighbours():
    u, y = torch.tensor([[0.0, 0], [0, 1], [5, 5], [5, 6]]), torch.tensor([1, 1, 7, 7])
    assert ev.neighbour_accuracy(u, y, torch.tensor([[0.1, 0], [5, 5.4]]), torch.tensor([1, 3]), neighbours=2) == 0.5


def test_classifier_learns_saves_and_loads(tiny_mnist, monkeypatch):
    with pytest.raises(CheckpointError, match=r"train_classifier\.py"):
        load_classifier("classifier")
    monkeypatch.setattr("common.classifier.EPOCHS", 2)
    scores = train_classifier(tiny_mnist, "classifier")
    net = load_classifier("classifier")
    p_y = label_probabilities(net, tiny_mnist.test.x)
    torch.testing.assert_close(p_y.sum(1), torch.ones(50))
    accuracy = (p_y.argmax(1) == tiny_mnist.test.y).float().mean().item()
    assert scores["test_accuracy"] == pytest.approx(accuracy)
    assert Classifier().features(tiny_mnist.test.x).shape == (50, 64)
