"""Small data, small models, and folders of their own: no test needs MNIST, the network or a clock."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small models: threads would only wait for each other
import contextlib
import importlib
import io
import runpy
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import ContinuousBernoulli, LowRankMultivariateNormal, Normal

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common import mnist, runs
from common.config import Config
from common.errors import DataError
from common.grey_levels import RESOLUTION
from common.likelihoods import LIKELIHOODS, CategoricalLikelihood, Likelihood
from common.mnist import Mnist, Split
from common.runs import Source
from common.vae import VAE
from report.build import ANSWERS, STUDIES, build_zip


class Continuous(Likelihood):
    """Followed from the README's recipe: the continuous Bernoulli (Loaiza-Ganem and Cunningham 2019)."""

    channels = 1

    def p_x(self, raw):
        return ContinuousBernoulli(logits=raw)

    def log_mass(self, p_x, x):
        low = torch.where(x <= 0, 0.0, x - RESOLUTION / 2)
        high = torch.where(x >= 1, 1.0, x + RESOLUTION / 2)
        p_x = ContinuousBernoulli(logits=p_x.logits.double())
        return (p_x.cdf(high.double()) - p_x.cdf(low.double())).log()


# further likelihoods, by one class or one entry each, go through all tests beside those of the report (fault 48)
FURTHER = {"continuous": Continuous, "coarse": lambda: CategoricalLikelihood(15)}
ALL = [*LIKELIHOODS, *FURTHER]
GREY = [name for name, likelihood in (LIKELIHOODS | FURTHER).items() if likelihood().grey_levels]
INDEPENDENT = [name for name in ALL if (LIKELIHOODS | FURTHER)[name]().independent]
SMALL = {"latent_dim": 3, "width": 4, "hidden": 8}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Nothing that a test writes lands in the repository."""
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    for name, likelihood in FURTHER.items():
        monkeypatch.setitem(LIKELIHOODS, name, likelihood)
    torch.manual_seed(0)


@pytest.fixture
def source():
    return Source("mnist", "task_1/a.py")


@pytest.fixture
def images():
    """(10, 1, 28, 28) on the 256 levels, black and white pixels among them."""
    levels = torch.randint(-200, 400, (10, 1, 28, 28)).clamp(0, 255)
    return levels.float() / 255


@pytest.fixture(scope="session")
def mnist5k():
    return mnist.load_mnist("mnist5k")


@pytest.fixture
def real_mnist(monkeypatch):
    monkeypatch.setattr(mnist, "_download", raising(OSError("no test needs the network")))
    try:
        return mnist.load_mnist("mnist")
    except DataError as error:
        if "was not found" not in str(error):
            raise
        pytest.skip("MNIST is not here")


@pytest.fixture
def tiny_mnist(mnist5k):
    return Mnist("mnist5k", *(Split(part.x[:50], part.y[:50]) for part in mnist5k[1:]))


@pytest.fixture
def config():
    return Config("bernoulli", **SMALL, batch_size=16, epoch_images=50, max_epochs=3)


def raising(error):
    """A function that does nothing else."""

    def fail(*_, **__):
        raise error

    return fail


def small_vae(likelihood: str) -> VAE:
    return VAE(LIKELIHOODS[likelihood](), **SMALL).eval()


class Linear(Likelihood):
    """N(x | raw, 0.3^2): with a linear decoder, probabilistic PCA, whose likelihood is known."""

    channels = 1

    def p_x(self, raw):
        return Normal(raw, 0.3)


def linear_vae(*lengths):
    """A model with orthogonal directions of such lengths, so that q can be exact; the directions; the exact p(X)."""
    vae = VAE(Linear(), **SMALL | {"latent_dim": len(lengths)}).eval()
    directions = torch.linalg.qr(torch.randn(784, len(lengths))).Q * torch.tensor(lengths)
    vae.decoder = nn.Sequential(nn.Linear(len(lengths), 784), nn.Unflatten(1, (1, 28, 28)))
    vae.decoder[0].weight.data, vae.decoder[0].bias.data = directions, torch.full((784,), 0.5)
    exact = LowRankMultivariateNormal(torch.full((784,), 0.5), directions, torch.full((784,), 0.09))
    return vae.requires_grad_(False), directions, exact


def posterior_of(x, directions):
    """p(Z|x) of the linear model, whose directions are orthogonal."""
    variance = 1 / (1 + directions.square().sum(0) / 0.09)
    return Normal((x.flatten(1) - 0.5) @ directions / 0.09 * variance, variance.sqrt().expand(len(x), -1))


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The submission's zip, unpacked in a folder with spaces."""
    folder = tmp_path_factory.mktemp("a submission") / "home work"
    with zipfile.ZipFile(build_zip(folder.with_suffix(".zip"))) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def call(project, mnist5k):
    """Runs scripts of the unpacked submission in this process, which saves imports, with warnings as errors.

    Models that have learned nothing are tested for running: on few of the stand-in's images, with short optimisations.
    """
    few = [Split(part.x[:n], part.y[:n]) for part, n in zip(mnist5k[1:], (400, 100, 100), strict=True)]
    shorter = {
        "common.mnist": {"_mnist5k": lambda: Mnist("mnist5k", *few)},
        "common.annealing": {"LEAPS": 1, "TEMPERATURES": 8},
        "common.training": {"start_from_marginals": lambda vae, x: None},
        "task_4.inference": {"WINDOW": 10, "MAX_WINDOWS": 5},
    }

    def ours():
        folders = ("common", "task_1", "task_2", "task_3", "task_4", "report")
        return [name for name in sys.modules if name.split(".")[0] in folders]

    def call(script, *arguments):
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="error"):
            for name in ours():
                patch.delitem(sys.modules, name)
            elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
            patch.setattr(sys, "path", [str(project), *elsewhere])
            for module, values in shorter.items():
                vars(importlib.import_module(module)).update(values)
            patch.setattr(sys, "argv", [str(project / script), *arguments])
            patch.chdir(project.parent)
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except SystemExit as error:
                if error.code == 130:  # Ctrl-C is meant for the tests
                    raise KeyboardInterrupt from error
                raise
            finally:
                for name in ours():
                    del sys.modules[name]

    return call


STEPS = ANSWERS + STUDIES
SHORT = dict.fromkeys(["train", "variants", "continued"], "--max-epochs 0")  # small ordinary arguments of the scripts
SHORT |= dict.fromkeys(["compare", "binary", "pixel_levels", "stopping", "gaps", "completions"], "--images 11")
SHORT |= {"classifier": "--epochs 1", "benchmark": "--batches 2", "posterior": "--images 8 --step 0.5"}
SHORT |= {"samples": "--draws 2 --components 2"}


def short(step):
    return SHORT.get(Path(step.command.split()[0]).stem, "").split()


def written(step, folder):
    return [folder / ("results" if name.endswith(".json") else "figures") / name for name in step.writes]


@pytest.fixture(scope="session")
def made(call, project):
    """The unpacked submission after all steps of the build, on the stand-in; what was said. A script's first call names
    no run: its default is the first that the build names."""
    begun, folder = set(), project / "data" / "mnist5k"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for step in STEPS:
            script, *words = step.command.split()
            if script not in begun or not all(path.is_file() for path in written(step, folder)):
                call(script, *(words if script in begun else []), *short(step), "--dataset", "mnist5k")
            begun.add(script)
    return out.getvalue()
