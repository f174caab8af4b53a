import pytest
import torch
from conftest import small_vae

from common import inference
from common.inference import Psi, infer, ranked
from common.vae import start_from_marginals


@pytest.fixture
def vae(images):
    vae = small_vae("bernoulli")
    start_from_marginals(vae, images, steps=20)
    with torch.no_grad():
        vae.decoder.net[-2].weight.mul_(30)  # so that z matters
    return vae.requires_grad_(False)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(inference, "WINDOW", 10)
    monkeypatch.setattr(inference, "MAX_WINDOWS", 12)


def test_decoder_is_unchanged_and_the_encoder_never_called(vae, images, monkeypatch):
    monkeypatch.setattr(vae.encoder, "forward", lambda x: pytest.fail("the encoder was called"))
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    infer(vae, images[:2])
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_an_image_has_the_same_psi_alone_and_in_company(vae, images):
    together = infer(vae, images[:4])
    for i in range(4):
        alone = infer(vae, images[i : i + 1])
        torch.testing.assert_close(alone.psi.mean[0], together.psi.mean[i], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(alone.psi.log_sigma[0], together.psi.log_sigma[i], atol=1e-4, rtol=1e-3)
        assert alone.steps[0] == together.steps[i]


def test_psi_does_better_than_the_prior(vae, images):
    found = infer(vae, images)
    prior = Psi(torch.zeros(10, 3), torch.zeros(10, 3))
    values = [
        torch.stack([inference.elbo(vae, images, psi.q_z()).elbo for _ in range(200)]).mean(0)
        for psi in (found.psi, prior)
    ]
    assert (values[0] > values[1]).all()


def test_flat_objective_ends_and_the_cap_is_reported(vae, images, monkeypatch):
    with torch.no_grad():
        vae.decoder.net[-2].weight.zero_()  # p(x|z) ignores z: the optimum is the prior
    found = infer(vae, images[:3], starts=[0])
    assert not found.capped.all()
    assert (found.psi.mean.abs() < 0.5).all()
    monkeypatch.setattr(inference, "MAX_WINDOWS", 2)
    found = infer(vae, images[:3])
    assert found.capped.all()
    assert (found.steps == 20).all()


def test_right_half_cannot_leak_into_psi(vae, images):
    left = (torch.arange(28) < 14).expand(1, 1, 28, 28)
    other = torch.where(left, images, images.flip(0))
    for first, second in zip(infer(vae, images, left).psi, infer(vae, other, left).psi, strict=True):
        assert torch.equal(first, second)


def test_best_of_takes_each_image_from_its_better_start(vae, images):
    found = [infer(vae, images, starts=[start]) for start in (0, 1)]
    best, other = ranked(found)
    assert torch.equal(best.objective, torch.maximum(found[0].objective, found[1].objective))
    assert torch.equal(other.objective, torch.minimum(found[0].objective, found[1].objective))
    for i, choice in enumerate((found[1].objective > found[0].objective).tolist()):
        assert torch.equal(best.psi.mean[i], found[choice].psi.mean[i])
        assert best.steps[i] == found[choice].steps[i]


def test_a_start_that_ended_in_nan_is_the_last():
    nothing = torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, dtype=torch.bool)
    results = [
        inference.Inferred(Psi(nothing[0] + i, nothing[0]), torch.tensor(objective), *nothing[1:])
        for i, objective in enumerate([[torch.nan, -1.0], [-5.0, -2.0]])
    ]
    assert ranked(results)[0].psi.mean[:, 0].tolist() == [1, 0]
