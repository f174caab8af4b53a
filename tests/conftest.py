"""Small data, small models, and folders of their own: no test needs MNIST, the network or a clock."""

import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import LowRankMultivariateNormal, Normal

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common import figures, mnist, runs
from common.config import Config
from common.likelihoods import Likelihood
from common.mnist import Mnist, Split
from common.vae import VAE
from report.build import build_zip

SMALL = {"latent_dim": 3, "width": 4, "hidden": 8}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Nothing that a test writes lands in the repository."""
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(runs, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(figures, "FIGURES", tmp_path / "figures")
    torch.manual_seed(0)


@pytest.fixture
def images():
    """(10, 1, 28, 28) on the 256 levels, black and white pixels among them."""
    levels = torch.randint(-200, 400, (10, 1, 28, 28)).clamp(0, 255)
    return levels.float() / 255


@pytest.fixture
def tiny_mnist():
    digits = mnist.load_mnist("digits")
    return Mnist("digits", *(Split(part.x[:50], part.y[:50]) for part in digits[1:]))


@pytest.fixture
def config():
    return Config("bernoulli", **SMALL, batch_size=16, max_epochs=3)


def small_vae(likelihood: str) -> VAE:
    return VAE(likelihood, **SMALL).eval()


class Linear(Likelihood):
    """N(x | raw, 0.3^2): with a linear decoder, probabilistic PCA, whose likelihood is known."""

    channels = 1

    def p_x(self, raw):
        return Normal(raw, 0.3)


class LinearDecoder(nn.Module):
    def __init__(self, directions):
        super().__init__()
        self.directions = directions

    def forward(self, z):
        return (z @ self.directions.T + 0.5).view(-1, 1, 28, 28)


def linear_vae(lengths):
    """A model with orthogonal directions of such lengths, so that q can be exact; the directions; the exact p(X)."""
    vae = VAE("gaussian", **SMALL | {"latent_dim": len(lengths)}).eval().requires_grad_(False)
    directions = torch.linalg.qr(torch.randn(784, len(lengths))).Q * lengths
    vae.likelihood, vae.decoder = Linear(), LinearDecoder(directions)
    return vae, directions, LowRankMultivariateNormal(torch.full((784,), 0.5), directions, torch.full((784,), 0.09))


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The submission's zip, unpacked in a folder with spaces."""
    folder = tmp_path_factory.mktemp("a submission") / "home work"
    with zipfile.ZipFile(build_zip(folder.with_suffix(".zip"))) as archive:
        archive.extractall(folder)
    return folder
