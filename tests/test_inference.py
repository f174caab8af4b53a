"""Task 4: the optimisation of Psi."""

from common.vae import LEFT, start_from_marginals
from report.studies import gaps, stopping
from task_4 import inference
from task_4.inference import PATIENCE, infer

import pytest
import torch
from conftest import small_vae


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
    infer(vae.requires_grad_(True), images[:2])
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_an_image_has_the_same_psi_alone_and_in_company(vae, images):
    together = infer(vae, images[:4])[0]
    for i in range(4):
        alone = infer(vae, images[i : i + 1])[0]
        torch.testing.assert_close(alone.psi.mean[0], together.psi.mean[i], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(alone.psi.log_sigma[0], together.psi.log_sigma[i], atol=1e-4, rtol=1e-3)
        assert alone.steps[0] == together.steps[i]


def test_images_and_streams_have_noise_of_their_own(images):
    keys = [(images[0], 0, 0), (images[1], 0, 0), (images[0], 1, 0), (images[0], 0, 1)]
    draws = [torch.randn(3, generator=inference.generator_of(*key)) for key in keys]
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    assert torch.equal(draws[0], torch.randn(3, generator=inference.generator_of(images[0].clone(), 0, 0)))


def test_flat_objective_ends_and_the_cap_is_reported(vae, images, monkeypatch):
    with torch.no_grad():
        vae.decoder.net[-2].weight.zero_()  # p(x|z) ignores z: the optimum is the prior
    found = infer(vae, images[:3], starts=1)[0]
    assert not (found.steps >= 10 * inference.MAX_WINDOWS).all()
    assert (found.psi.mean.abs() < 0.5).all()
    monkeypatch.setattr(inference, "MAX_WINDOWS", 2)
    found = infer(vae, images[:3])[0]
    assert (found.steps == 20).all()
    assert gaps.measured(vae, images[:3])["capped"] == 3 * gaps.STREAMS


def test_right_half_cannot_leak_into_psi(vae, images):
    other = torch.where(LEFT, images, images.flip(0))
    for first, second in zip(infer(vae, images, LEFT)[0].psi, infer(vae, other, LEFT)[0].psi, strict=True):
        assert torch.equal(first, second)


def test_kept_optimisations_come_in_the_order_of_their_ends(vae, images):
    found = infer(vae, images, starts=5, keep=3)
    assert len(found) == 3
    assert (found[0].objective >= found[1].objective).all()
    assert (found[1].objective >= found[2].objective).all()
    assert not torch.equal(found[0].psi.mean, found[1].psi.mean)
    best = infer(vae, images, starts=5, keep=5)[0]
    assert (best.objective >= found[0].objective - 1e-3).all()  # the same optimisations, none left out early


def test_what_is_no_number_ranks_before_what_was_given_up():
    values = torch.tensor([-torch.inf, torch.nan, -torch.inf, -torch.inf, 1.0, 3.0, torch.nan, 2.0])
    best_first = inference.ranked(values, starts=4)
    assert best_first[0].tolist() == [1, 5]
    assert best_first[:, 1].tolist() == [5, 7, 4, 6]


@pytest.mark.parametrize("mask", [None, LEFT], ids=["whole", "left"])
def test_the_study_follows_the_same_optimisations_further(vae, images, mask, monkeypatch):
    for module, name, value in ((stopping, "WINDOW", 10), (stopping, "SAMPLES", 10), (inference, "MAX_WINDOWS", 60)):
        monkeypatch.setattr(module, name, value)
    found, course = infer(vae, images[:3], mask, starts=1)[0], stopping.followed(vae, images[:3], mask)
    assert (found.steps < 10 * 60).all()
    ends = [course.path[stop - PATIENCE - 1 : stop, i].mean(dim=0) for i, stop in enumerate(course.stop.tolist())]
    expected = torch.cat([*found.psi, found.objective.unsqueeze(1)], dim=1)
    torch.testing.assert_close(torch.stack(ends), expected, atol=1e-3, rtol=1e-3)
