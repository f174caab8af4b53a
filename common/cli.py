"""Command lines: one parser for training, generated from Config, and one for the scripts that use a trained run."""

import argparse
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from common import runs
from common.config import Config
from common.errors import CheckpointError, UsageError, UserError
from common.mnist import Mnist, load_mnist
from common.runs import load_model, open_run, save_model, save_results
from common.training import fit
from common.vae import VAE


class Parser(argparse.ArgumentParser):
    """An error is one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser(doc: str) -> Parser:
    """The options that every script has."""
    result = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--dataset", choices=["auto", "mnist", "digits"], default="auto", help="digits: a stand-in")
    result.add_argument("--data-dir", type=Path, help="a folder with the MNIST files")
    result.add_argument("--device", default="auto", help="cpu, cuda, ...; auto is a GPU where there is one")
    result.add_argument("--threads", type=int, help="of the CPU; as many as there are cores if not given")
    return result


def training_parser(doc: str, **defaults: Any) -> Parser:
    """An option for each setting that defaults does not fix, e.g. --latent-dim 2."""
    result = parser(doc)
    for item in fields(Config):
        if item.name not in defaults:
            option, text = "--" + item.name.replace("_", "-"), f"{item.metadata['help']} (%(default)s)"
            result.add_argument(option, type=item.type, default=item.default, help=text)
    result.set_defaults(**defaults)
    return result


def run_parser(doc: str, likelihood: str, latent_dim: int = 32) -> Parser:
    """For scripts that use a trained model."""
    result = parser(doc)
    run = Config(likelihood, latent_dim).run_name("mnist")
    result.add_argument("--run", default=run, help="the trained run to use (%(default)s)")
    result.add_argument("--seed", type=int, default=0, help="of all samples (0)")
    return result


def count(at_least: int) -> Callable[[str], int]:
    """A type for options: a whole number of at least so many."""

    def parse(text: str) -> int:
        value = int(text)
        if value < at_least:
            raise argparse.ArgumentTypeError(f"{value} is less than {at_least}")
        return value

    return parse


def prepare(options: argparse.Namespace) -> tuple[Mnist, str]:
    """Load the data and settle device and threads."""
    if options.threads is not None:
        if options.threads < 1:
            raise UsageError(f"threads is {options.threads}, expected at least 1")
        torch.set_num_threads(options.threads)
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = automatic if options.device == "auto" else options.device
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device is '{device}', which torch cannot use here; try --device cpu") from error
    return load_mnist(options.dataset, options.data_dir), device


def train(options: argparse.Namespace) -> str:
    """Train what the options say, or go on with it; returns the run's name."""
    config = Config(**{item.name: getattr(options, item.name) for item in fields(Config)})
    mnist, device = prepare(options)
    run = config.run_name(mnist.name)
    with open_run(run) as folder:
        if not (runs.RESULTS / f"{run}.json").is_file():
            (folder / "model.pt").unlink(missing_ok=True)  # complete with its results only: fit gives both again
        fitted = fit(config, mnist, folder, device)
        if fitted is None:
            print(f"{run} has been trained before; delete {folder} to start again")
        else:
            results, weights = fitted
            save_results(run, results)
            save_model(folder, run, mnist.name, config, weights)  # last: it says that the run is complete
            epoch, test = results["best_epoch"], results["test"]["elbo"]
            print(f"wrote {folder / 'model.pt'}: best epoch {epoch}, test ELBO {test:.2f} nats per image")
    return run


def load(options: argparse.Namespace) -> tuple[Mnist, VAE, str]:
    """Data, trained model and run name for a script that uses a run; the images are on the model's device."""
    mnist, device = prepare(options)
    run = name_for(mnist, options.run)
    vae = load_run(run, device)
    torch.manual_seed(options.seed)
    return mnist_on(mnist, device), vae, run


def name_for(mnist: Mnist, run: str) -> str:
    """The run's name on this data set, so that nothing made from the stand-in has a name that MNIST's could have."""
    return run if mnist.name == "mnist" or run.startswith(mnist.name) else f"{mnist.name}-{run}"


def mnist_on(mnist: Mnist, device: str) -> Mnist:
    return Mnist(mnist.name, *(part._replace(x=part.x.to(device), y=part.y.to(device)) for part in mnist[1:]))


def load_run(run: str, device: str = "cpu") -> VAE:
    """load_model, with an error that gives the command which trains the run."""
    try:
        return load_model(run, device)[0]
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {train_command(run)}") from error


def train_command(run: str) -> str:
    """How to train a run, from its name."""
    stand_in, _, rest = run.partition("-") if run.startswith("digits-") else ("", "", run)
    likelihood, _, k = rest.partition("-k")
    k, _, seed = k.partition("-seed")
    if not k.isdigit():
        return "a run is named like gaussian-k32"
    task = {"gaussian": "task_1/train.py"}.get(likelihood, f"task_2/train.py --likelihood {likelihood}")
    extra = (f" --latent-dim {k}" if k != "32" else "") + (f" --seed {seed}" if seed else "")
    return f"train it with: python {task}{extra}{' --dataset digits' if stand_in else ''}"


def main(script: Callable[[], None]) -> None:
    """Run a script; errors that are the user's become one message and an exit code, interruptions 130."""

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        script()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        command = shlex.join(["python", *sys.argv])
        print(f"\ninterrupted; a training goes on after its last complete epoch with: {command}", file=sys.stderr)
        sys.exit(130)
