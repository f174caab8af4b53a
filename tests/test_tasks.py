"""What the figures of Tasks 1, 3c and 4 show, on a model whose answers are known."""

from types import SimpleNamespace

from common.runs import Source
from common.vae import LEFT
from task_1 import reconstruct
from task_3 import interpolate
from task_4 import complete
from task_4 import reconstruct as without_encoder

import pytest
import torch
from conftest import linear_vae, posterior_of
from torch.distributions import Normal


@pytest.fixture
def columns_of(monkeypatch, mnist5k):
    """Run a script with a linear decoder, q(Z|x) near a point, and means for images; the columns that it would draw."""
    vae, _, _ = linear_vae(3.0, 2.0)
    vae.likelihood.shows = "means"
    vae.likelihood.sample = vae.likelihood.mean
    code = torch.randn(784, 2) / 28

    def columns_of(module, sigma=1e-6):
        vae.q_z = lambda x: Normal(x.flatten(1) @ code, sigma)
        drawn = []
        given = SimpleNamespace(run="a run"), mnist5k, vae, Source("mnist5k", "a.py")
        monkeypatch.setattr(module.cli, "with_model", lambda doc, run: given)
        monkeypatch.setattr(module, "save_figure", lambda *arguments: None)
        grid = "pairs_grid" if module is reconstruct else "columns_grid"
        monkeypatch.setattr(module, grid, lambda *given, **_: drawn.extend(given))
        module.main()
        return vae, *drawn

    return columns_of


def image(vae, z):
    return vae.likelihood.mean(vae.p_x(z))


def test_32_test_images_beside_their_own_reconstructions(columns_of, mnist5k):
    vae, x, x_new = columns_of(reconstruct)
    assert torch.equal(x, mnist5k.test.x[:32])
    torch.testing.assert_close(x_new, image(vae, vae.q_z(x).mean), atol=1e-3, rtol=0)


@pytest.mark.parametrize("module", [reconstruct, without_encoder])
def test_reconstructions_are_of_samples_of_q_and_not_of_its_mean(columns_of, module):
    vae, *drawn = columns_of(module, sigma=1.0)
    x, x_new = (drawn[0][0], drawn[0][2]) if module is without_encoder else drawn
    moved = (x_new - image(vae, vae.q_z(x).mean)).square().sum(dim=(1, 2, 3)).mean()
    assert 5 < moved < 25  # the directions have lengths of 3 and 2: 13 if z varies by 1


def test_lambda_goes_from_1_at_x_to_0_at_x_prime(columns_of, mnist5k):
    vae, columns, titles = columns_of(interpolate)
    x, x_prime = columns[0], columns[-1]
    places = [(mnist5k.test.x == image).flatten(1).all(dim=1).nonzero().item() for image in torch.cat([x, x_prime])]
    first, second = torch.tensor(places).view(2, -1)
    assert (mnist5k.test.y[first] != mnist5k.test.y[second]).all()
    assert len(set(places)) == 2 * interpolate.ROWS  # no image is in two pairs
    assert titles[:2] + titles[-2:] == ["$x$", "λ = 1", "0", "$x'$"]
    z, z_prime = vae.q_z(x).mean, vae.q_z(x_prime).mean
    for lam, column in zip(torch.linspace(1, 0, len(columns) - 2), columns[1:-1], strict=True):
        torch.testing.assert_close(column, image(vae, lam * z + (1 - lam) * z_prime), atol=1e-3, rtol=0)


def test_completions_keep_the_left_half_and_nothing_else(columns_of, mnist5k):
    vae, columns, titles = columns_of(complete)
    x = mnist5k.test.x[: complete.ROWS]
    assert len(columns) == len(titles) == 3
    assert torch.equal(columns[0], x)
    assert torch.equal(columns[1], torch.where(LEFT, x, 0.0))
    assert torch.equal(torch.where(LEFT, columns[2], 0.0), columns[1])
    assert int(LEFT.sum()) == 28 * 14
    known = vae.decoder[0].weight[LEFT.flatten()]  # the mean of p(Z|x_L), with nothing of the right half, black or not
    precision, x_left = 0.09 * torch.eye(2) + known.T @ known, x[LEFT.expand_as(x)].view(len(x), -1)
    expected = torch.where(LEFT, x, image(vae, torch.linalg.solve(precision, known.T @ (x_left - 0.5).T).T))
    assert (columns[2] - expected).abs().mean() < 0.009


def test_with_and_without_the_encoder_in_this_order(columns_of, mnist5k):
    vae, columns, titles = columns_of(without_encoder)
    assert titles == ["$x$", "$x'$", "$x''$"]
    assert torch.equal(columns[0], mnist5k.test.x[:8])
    torch.testing.assert_close(columns[2], image(vae, vae.q_z(columns[0]).mean), atol=1e-3, rtol=0)
    exact = posterior_of(columns[0], vae.decoder[0].weight)
    assert (columns[1] - image(vae, exact.mean)).abs().mean() < 0.013
    assert (columns[1] - columns[2]).abs().mean() > 0.02
