"""Command lines: one parser for training, generated from Config, and one for the scripts that use a trained run."""

import argparse
import ctypes
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from subprocess import list2cmdline
from typing import Any, NoReturn

from common.config import Config, foreign
from common.errors import UsageError, UserError
from common.mnist import ROOT, Mnist, load_mnist
from common.runs import Source
from common.training import train_run
from common.vae import VAE

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h, bytes
NOT_IN_COMMAND = {"help", "dataset", "data_dir", "device", "threads"}
DATASETS = "mnist, mnist5k (a stand-in), or auto: MNIST, but the stand-in where MNIST cannot be had"
DEVICES = ("cpu", "cuda", "xpu")  # mps has no double precision


class Parser(argparse.ArgumentParser):
    """An error is one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def command(options: argparse.Namespace) -> str:
    """Script and options that made these: the run, and all that is not the default and changes numbers."""
    script = Path(sys.argv[0]).resolve()
    words = [script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name]
    for action in options.parser._actions:
        value = getattr(options, action.dest, None)
        if action.dest not in NOT_IN_COMMAND and (value != action.default or action.dest == "run"):
            words += [action.option_strings[0], *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def parser(doc: str, **own: tuple[Callable[[str], Any], Any, str]) -> Parser:
    """The options that every script has, and its own by name: type, default (a list if it takes several), and text."""
    result = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    result.add_argument("--dataset", choices=["auto", "mnist", "mnist5k"], default="auto", help=DATASETS)
    result.add_argument("--data-dir", type=Path, help="a folder with the MNIST files")
    result.add_argument("--device", default="auto", help="cpu, cuda, ...; auto is CUDA where there is a GPU")
    result.add_argument("--threads", type=number(1, 1024), help="of the CPU; one for each core if not given")
    result.set_defaults(parser=result)  # for command()
    for name, (kind, default, text) in own.items():
        many, option = {"nargs": "+"} if isinstance(default, list) else {}, "--" + name.replace("_", "-")
        result.add_argument(option, type=kind, default=default, help=f"{text} (%(default)s)", **many)
    return result


def training_parser(doc: str, preset: Config | None = None) -> Parser:
    """An option for each setting but the likelihood, e.g. --latent-dim 2; with a preset its defaults and constants."""
    others = foreign(preset.likelihood) if preset else set()
    mine = [item for item in fields(Config)[1:] if item.name not in others]
    own = {item.name: (item.type, getattr(preset, item.name, item.default), item.metadata["help"]) for item in mine}
    result = parser(doc, **own)
    result.set_defaults(likelihood=[preset.likelihood] if preset else [])
    return result


def run_parser(doc: str, *runs: str, **own: Any) -> Parser:
    """For scripts that use a trained model, by default this one; of several, --run takes several."""
    name = (lambda text: Config.of_run(text).run), list(runs) if len(runs) > 1 else runs[0], "the trained run to use"
    return parser(doc, run=name, seed=(number(0, 2**40), 0, "of all samples"), **own)


def number(at_least: float, at_most: float = 10**9, kind: type = int) -> Callable[[str], float]:
    """A type for options: a number in these bounds, whole unless kind is float."""

    def parse(text: str) -> float:
        value = kind(text)
        if not at_least <= value <= at_most:
            raise argparse.ArgumentTypeError(f"{text} is not between {at_least} and {at_most}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"  # for argparse's message
    return parse


def keep_memory() -> None:
    """Have glibc keep what one step frees for the next: the system would clear each large block anew, which takes time
    where p(X|z) has many channels. Other systems have no mallopt."""
    with suppress(AttributeError, TypeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**25)


def settle(options: argparse.Namespace) -> str:
    """Settle memory, threads, seed and device; returns the device."""
    keep_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(getattr(options, "seed", 0))
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = automatic if options.device == "auto" else options.device
    try:
        if torch.device(device).type not in DEVICES:
            raise RuntimeError
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        usable = f"none of {', '.join(DEVICES)}, or not to be had here"
        raise UsageError(f"device is '{device}', which is {usable}; try --device cpu") from error
    return device


def prepare(options: argparse.Namespace) -> tuple[Mnist, Source, str]:
    """The data, on the device; the source of what is made from it; and the device."""
    device = settle(options)
    mnist = load_mnist(options.dataset, options.data_dir)
    return mnist.to(device), source_of(options, mnist.name), device


def with_data(doc: str, **own: Any) -> tuple[argparse.Namespace, Mnist, Source, str]:
    """For a script: its options, and what prepare makes of them."""
    options = parser(doc, **own).parse_args()
    return options, *prepare(options)


def with_model(doc: str, run: str, **own: Any) -> tuple[argparse.Namespace, Mnist, VAE, Source]:
    """For a script that uses a run: its options, the data, the trained model and the source."""
    options = run_parser(doc, run, **own).parse_args()
    mnist, source, device = prepare(options)
    return options, mnist, source.vae(options.run, device), source


def source_of(options: argparse.Namespace, dataset: str | None = None) -> Source:
    """The source of what is made from a data set; by default without images: MNIST's runs, or those of the stand-in.

    Raises UserError, before any work, if what will be made could not be written.
    """
    named = "mnist" if options.dataset == "auto" else options.dataset
    source = Source(dataset or named, command(options), options.data_dir)
    for folder in (source.home.results, source.home.figures):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UserError(f"cannot write to {folder} ({error}); make it writable") from error
    return source


def require(fits: bool, run: str, what: str) -> None:
    """Raises UsageError if a script cannot use the run that was named."""
    if not fits:
        raise UsageError(f"run '{run}' does not fit: this script needs {what}; leave --run out")


def configs_of(options: argparse.Namespace) -> list[Config]:
    """The settings that the options say, for each likelihood. Raises UsageError for those that make no sense."""
    settings = {item.name: getattr(options, item.name, item.default) for item in fields(Config)[1:]}
    return [Config(likelihood, **settings) for likelihood in options.likelihood]


def train_runs(options: argparse.Namespace) -> None:
    """What task_1/train.py does, for each likelihood."""
    configs = configs_of(options)  # refused before any is trained
    mnist, source, device = prepare(options)
    for config in configs:
        train_run(config, mnist, source, device)


def main(script: Callable[[], None]) -> None:
    """Run a script; errors that are the user's become one message and an exit code, interruptions 130."""
    for name in ("stdout", "stderr"):  # None in a service
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        script()
    except (UserError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            error = UserError("memory is full; end what else uses it, or take smaller settings, or --device cpu")
        if not isinstance(error, UserError):
            raise
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        again = (list2cmdline if os.name == "nt" else shlex.join)(["python", *sys.argv])
        print(f"\ninterrupted; what is complete is kept, and this goes on or starts again: {again}", file=sys.stderr)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)
        try:
            sys.stdout.flush()
        except OSError:  # nobody reads what is said; all files have been written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
