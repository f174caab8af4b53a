"""The measures: against formulas, and as probabilities."""

import json
import math
from types import SimpleNamespace

from common import evaluation as ev
from common.annealing import anneal, log_joint, resampled
from common.config import FAVOURITE, Config, shortened
from common.grey_levels import LEVELS, level_frequencies
from common.likelihoods import LIKELIHOODS, CategoricalLikelihood
from common.runs import Source, read_json
from common.vae import LEFT, VAE, masked
from report.studies import completions, posterior
from report.studies.classifier import Classifier, frechet_distance, inception_score
from report.studies.completions import failures, soft, whole_score
from report.studies.pixel_levels import calibration, predict
from report.studies.posterior import exact_elbo, moments, refined
from report.studies.samples import fitted
from report.studies.variants import rows_so_far
from task_2 import compare
from task_4 import inference
from task_4.inference import Psi

import pytest
import torch
from conftest import GREY, INDEPENDENT, linear_vae, posterior_of, small_vae
from torch.distributions import LowRankMultivariateNormal, Normal


def test_bits_per_dimension_and_their_standard_error():
    bits = ev.bits_per_dimension(-784 * math.log(256.0) * torch.tensor([0.5, 1.5] * 8))  # 4 and 12
    assert ev.mean_and_se(bits) == pytest.approx({"mean": 8.0, "se": 4 / 15**0.5})


def test_level_frequencies_are_counts_and_never_zero(images):
    found = level_frequencies(images)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(1, 28, 28))
    for row, column in ((0, 0), (13, 27)):
        here, everywhere = (
            torch.bincount((x * 255).round().long().flatten(), minlength=LEVELS)
            for x in (images[:, 0, row, column], images)
        )
        overall = (everywhere + 1 / LEVELS) / (images.numel() + 1)
        torch.testing.assert_close(found[:, 0, row, column], (here + 300 * overall) / (len(images) + 300))


@pytest.mark.parametrize("k", [3, 32, 51, 255])
def test_levels_share_the_probability_of_their_own_bin(k, images):
    """Also where bins end at levels, so that the least rounding would move one to its neighbour."""
    likelihood = CategoricalLikelihood(k)
    p_x = likelihood.p_x(torch.randn(1, k, 28, 28).expand(LEVELS, -1, -1, -1))
    levels = (torch.arange(LEVELS) / (LEVELS - 1)).view(-1, 1, 1, 1).expand(-1, -1, 28, 28)
    log_p = ev.grey_mass(likelihood, images)(p_x, levels).double()
    torch.testing.assert_close(log_p.exp().sum(dim=0), torch.ones(1, 28, 28).double(), atol=1e-5, rtol=0)
    bins = likelihood.observe(levels)[:, 0]  # (256, 28, 28)
    (row, column), often = (13, 27), level_frequencies(images)[:, 0]
    mine = bins[:, row, column] == bins[0, row, column]  # the levels that share black's bin
    shares = log_p[mine, 0, row, column].exp()
    torch.testing.assert_close(
        (shares / shares.sum()).float(), often[mine, row, column] / often[mine, row, column].sum()
    )


def test_bits_of_the_comparison_are_those_of_both_parts(source, tiny_mnist, monkeypatch):
    given = SimpleNamespace(images=len(tiny_mnist.test.x)), tiny_mnist, source, "cpu"
    monkeypatch.setattr(compare.cli, "with_data", lambda doc, images: given)
    monkeypatch.setattr(source, "models", lambda *_: [(FAVOURITE, small_vae("inflated").requires_grad_(False))])
    compare.main()
    models = read_json(source.home.results / "comparison.json")["models"]
    found, alone = models[FAVOURITE.run], models["no latents"]
    parts = {name: found[name]["mean"] for name in ("elbo", "reconstruction", "kl")}
    assert parts["elbo"] == pytest.approx(parts["reconstruction"] + parts["kl"], abs=2e-5)  # of six digits
    assert parts["kl"] > 1e-4
    assert found["importance_weighted"]["mean"] < parts["elbo"]  # fewer bits, of the same images
    assert alone["above_favourite"]["mean"] == pytest.approx(alone["elbo"]["mean"] - parts["elbo"], rel=1e-4)


def test_frechet_distance_of_gaussians_is_the_formula():
    a = torch.randn(50_000, 2) * torch.tensor([1.0, 2.0])
    b = torch.randn(50_000, 2) * torch.tensor([3.0, 1.0]) + torch.tensor([1.0, 0.0])
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 1, rel=0.03)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


def test_inception_score_of_clear_balanced_and_of_unclear_digits():
    clear = torch.eye(10).repeat(5, 1)
    assert inception_score(clear) == pytest.approx(10)
    assert inception_score(torch.full((50, 10), 0.1)) == pytest.approx(1)
    assert inception_score(clear[:1]) == pytest.approx(1)


def test_calibration_is_the_mean_distance_over_bins():
    predicted = torch.rand(200, 1, 28, 28)
    told = calibration(predicted, torch.rand_like(predicted) < predicted)
    assert told["mean"] < 0.01
    assert 0 < told["se"] < 0.01
    off = calibration(predicted, torch.rand_like(predicted) < predicted / 2)  # means of bins: 0.05, 0.15, ...
    assert off["mean"] == pytest.approx(0.25, abs=0.01)
    assert calibration(torch.zeros(5, 1, 28, 28), torch.ones(5, 1, 28, 28).bool())["mean"] == 1  # one bin has pixels


@pytest.mark.parametrize("name", GREY)
def test_predictions_of_all_levels_of_a_pixel_sum_to_one(name, images):
    vae = small_vae(name).requires_grad_(False)
    vae.decoder.bias.normal_(std=1.5)
    mass = ev.grey_mass(vae.likelihood if name in INDEPENDENT else vae.likelihood.pixel, images)
    every = torch.stack(predict(vae, mass, images[:2], [[level] for level in range(LEVELS)]))
    torch.testing.assert_close(every.double().sum(dim=0), torch.ones(2, 1, 28, 28).double(), atol=1e-4, rtol=0)
    black, ink = predict(vae, mass, images[:2], ([0], range(252, LEVELS)))
    assert black.shape == ink.shape == (2, 1, 28, 28)


def test_fitted_mixture_finds_groups_and_gains_over_one_gaussian():
    centres = torch.randn(20, 2) * 4
    z, z_val = ((centres[torch.randint(20, (n,))] + 0.1 * torch.randn(n, 2)) for n in (2000, 500))
    mixture = fitted(z, z_val, [2, 20])
    assert mixture.n_components == 20
    assert (mixture.sample(5)[0] != mixture.sample(5)[0]).all()  # a new set is new
    assert mixture.score(z_val.numpy()) > Normal(0, 4).log_prob(z_val).sum(1).mean().item() + 2


def test_variants_go_on_from_rows_of_the_same_command_classifier_and_settings_alone(source):
    source.weights, command = {"classifier": "a"}, source.command
    config, old = Config("gaussian", latent_dim=16), Config("beta", eps=1e-6)
    wanted = [config, old, Config("beta", latent_dim=16)]
    row = shortened({config.run: {"settings": config.to_dict()}})
    rest = {old.run: {"settings": old.to_dict() | {"weight_decay": 0.5}}}  # a default has changed since
    rest |= {wanted[2].run: {}, "gone-k2": {}}  # of unknown settings; of a variant that is no more
    assert rows_so_far(source, wanted) == {}
    for made_by, weights, rows in (
        (command, {}, {}),  # judged by no classifier
        (f"{command}, 1 of 3 variants", {"classifier": "a"}, row),
        (command, {"classifier": "b"}, {}),
        (f"{command} --max-epochs 1", {"classifier": "a"}, {}),
    ):
        other = Source("mnist", made_by)
        other.weights = weights
        path = other.save("variants", {"rows": row | rest})
        assert rows_so_far(source, wanted) == rows
    for text in ("<<<<<<< HEAD", json.dumps({"source": source.stamp(), "rows": []})):
        path.write_text(text)
        assert rows_so_far(source, wanted) == {}


def each_log_joint(vae, x, z):
    """(N, M) for x (N, 1, 28, 28) and z (M, K)."""
    return log_joint(vae, x, vae.likelihood.log_prob)(z.unsqueeze(1).expand(-1, len(x), -1)).T


def test_quadrature_is_exact_for_a_linear_model(monkeypatch):
    monkeypatch.setattr(posterior, "log_joint_table", each_log_joint)  # that of the study is for the Bernoulli model
    vae, directions, exact = linear_vae(3.0, 1.0)
    x = exact.sample((5,)).clamp(0, 1).view(5, 1, 28, 28)
    log_p = exact.log_prob(x.flatten(1)).double()
    axis = torch.arange(-5, 5, 0.1)
    z = torch.cartesian_prod(axis, axis)
    exact_q = posterior_of(x, directions)
    for i in range(5):
        cells, log_mass = refined(vae, x[i : i + 1], z, each_log_joint(vae, x[i : i + 1], z)[0], 0.1)
        assert log_mass.logsumexp(0).item() == pytest.approx(log_p[i].item(), abs=5e-3)
        far = torch.stack([exact_q.mean[i], torch.tensor([4.0, 4.0])])  # of two modes one has all, the other nothing
        mean, log_sigma = moments(cells, log_mass, far, 0.02)
        torch.testing.assert_close(mean[0], exact_q.mean[i], atol=5e-3, rtol=0)
        torch.testing.assert_close(log_sigma[0].exp(), exact_q.stddev[i], atol=0, rtol=0.02)
        assert torch.equal(mean[1], far[1])
    torch.testing.assert_close(exact_elbo(vae, x, exact_q).double(), log_p, atol=5e-3, rtol=0)
    off = Normal(exact_q.mean, 2 * exact_q.stddev)  # KL(q || posterior) = 2 (3/2 - log 2)
    missing = 2 * (1.5 - torch.log(torch.tensor(2.0))).expand(5).double()
    torch.testing.assert_close(log_p - exact_elbo(vae, x, off).double(), missing, atol=5e-3, rtol=0)
    means = torch.stack([exact_q.mean + shift for shift in (0.1, 50, 0.1, 0.1)], dim=1)  # (5, MODES, 2)
    wider = (2 * exact_q.stddev).log().unsqueeze(1).expand_as(means)
    near, far, *others = posterior.fitted(vae, x, Psi(means, wider))
    assert len(others) == 2
    torch.testing.assert_close(exact_elbo(vae, x, near).double(), log_p, atol=0.05, rtol=0)
    assert (far.mean > 10).all()


def test_all_images_on_the_plane_by_one_matrix_product(images):
    vae = VAE(LIKELIHOODS["bernoulli"](), latent_dim=2, width=4, hidden=8).eval().requires_grad_(False)
    z = torch.randn(7, 2)
    found = posterior.log_joint_table(vae, images, z)
    torch.testing.assert_close(found, each_log_joint(vae, images, z), atol=1e-2, rtol=0)


def test_annealing_finds_posterior_and_evidence_from_a_poor_start():
    """On the left half of a linear model, from components that are too wide and off; the worse of them counts less."""
    vae, directions, exact = linear_vae(3.0, 2.0)
    x = exact.sample((4,)).clamp(0, 1).view(4, 1, 28, 28)
    chosen = LEFT.flatten()
    half = LowRankMultivariateNormal(torch.full((392,), 0.5), directions[chosen], torch.full((392,), 0.09))
    precision = torch.eye(2) + directions[chosen].T @ directions[chosen] / 0.09
    mean = torch.linalg.solve(precision, (directions[chosen].T @ (x.flatten(1)[:, chosen] - 0.5).T) / 0.09).T
    sigma = precision.inverse().diagonal().sqrt()
    start = [Normal(mean + shift * sigma, (2 * sigma).expand(4, 2)) for shift in (-3, 1)]
    torch.manual_seed(0)
    left = masked(vae.likelihood.log_prob, LEFT)
    z, log_w = anneal(log_joint(vae, x, left), start, chains=400, temperatures=40)
    torch.testing.assert_close(ev.importance_bound(log_w), half.log_prob(x.flatten(1)[:, chosen]), atol=0.1, rtol=0)
    z = resampled(z.transpose(0, 1), log_w.T, 400).transpose(0, 1)
    torch.testing.assert_close(z.mean(0), mean, atol=0.4 * sigma.max().item(), rtol=0)
    torch.testing.assert_close(z.std(0), sigma.expand(4, 2), atol=0, rtol=0.2)


def test_draws_are_shown_in_proportion_to_their_weights():
    z = torch.arange(4.0).view(1, 4, 1)
    shown = resampled(z, torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log(), 8)
    assert shown.flatten().tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_what_bad_completions_suffer_from_is_measured():
    x = torch.rand(20, 1, 28, 28).round()  # black and white: no entropy
    scores = {"left_by_psi": -45.0, "by_psi": -55.0, "left_best": -42.0, "error": 0.1}
    scores = {name: torch.full((20,), value) for name, value in scores.items()}
    scores["by_psi"][6] = -75  # x_R is not drawn
    scores["left_by_psi"][7], scores["by_psi"][7] = -41, -51  # the left half has a better optimum
    nats = torch.full((20,), 10.0)
    nats[5:8] = torch.tensor([50.0, 40.0, 20.0])
    found = failures(scores, nats, x)
    assert found["worst_share_that_stays"][:3] == pytest.approx([0.2, 0.75, 0.5], abs=0.01)
    assert found["worst_twentieth"]["images"] == 8
    assert found["worst_twentieth"]["missed_optima"] == 1


def test_completions_are_scored_by_draws_of_task_4b_as_well(images, monkeypatch):
    vae, net, drawn = small_vae("bernoulli").requires_grad_(False), Classifier().requires_grad_(False), []
    monkeypatch.setattr(completions, "TEMPERATURES", 4)
    monkeypatch.setattr(completions, "SAMPLES", 4)
    monkeypatch.setattr(inference, "WINDOW", 5)
    kept = completions.mean_completion
    monkeypatch.setattr(completions, "mean_completion", lambda *given: drawn.append(given[-2:]) or kept(*given))
    scores = completions.score(vae, images[:3], net)
    z, share = drawn[1]
    q_z = inference.infer(vae, images[:3], LEFT)[0].psi.q_z()
    assert ((z - q_z.mean).abs() < 6 * q_z.stddev).all()
    assert (share == 1 / len(z)).all()
    torch.testing.assert_close(scores["image_psi"][..., :14], images[:3, :, :, :14])
    alone = torch.zeros(len(z), 3).index_fill_(0, torch.tensor(1), 1.0)  # all weight on one draw
    image, p_y = kept(vae, images[:3], net, z, alone)
    assert torch.equal(image[..., 14:], vae.likelihood.mean(vae.p_x(z[1]))[..., 14:])
    torch.testing.assert_close(p_y, net(image).softmax(dim=1))


def test_the_right_half_counts_in_whole_scores_alone(images):
    vae = small_vae("inflated")
    p_x = vae.p_x(torch.randn(10, 3))
    found, own = whole_score(vae.likelihood, LEFT)(p_x, images), vae.likelihood.log_prob(p_x, images)
    assert torch.equal(found[..., :14], own[..., :14])
    assert torch.equal(found[..., 14:], soft(vae.likelihood.mean(p_x), images)[..., 14:])
