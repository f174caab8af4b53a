"""Runs on disk: where everything lies, files that are written whole or not at all, and what each was made from.

data/runs/<run>/state.pt    everything after the last complete epoch, to go on from
data/runs/<run>/model.pt    the best weights, written when training has ended
data/shipped/<run>.pt       the same for models of the report; used where there is no run of one's own
report/results/<name>.json  numbers; report/figures/<name>.png: pictures
data/mnist5k/               the same folders for the stand-in

Every result and figure carries its source: the command that made it, and a fingerprint of the weights it was made with.
"""

import errno
import hashlib
import json
import os
import pickle
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from shutil import disk_usage
from typing import Any, BinaryIO, NamedTuple

from common.config import Config, shortened
from common.errors import CheckpointError, UserError, say
from common.mnist import ROOT
from common.vae import VAE

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

FORMAT = 2  # of the files; raised when old ones can no longer be read
FREE = 200 * 2**20  # bytes of disk that a training of the usual size needs
# how reading a damaged or foreign checkpoint can fail
UNREADABLE = (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError)
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # as on network disks


class Home(NamedTuple):
    """The folders of a data set."""

    runs: Path
    shipped: Path
    results: Path
    figures: Path


def home(dataset: str) -> Home:
    data, report = ROOT / "data", ROOT / "report"
    if dataset != "mnist":
        data = report = ROOT / "data" / dataset
    return Home(data / "runs", data / "shipped", report / "results", report / "figures")


class Source:
    """What a result or figure is made from: the data set, the command, and the weights that were loaded for it."""

    def __init__(self, dataset: str, command: str, data_dir: Path | None = None):
        self.dataset, self.command, self.data_dir = dataset, command, data_dir
        self.home = home(dataset)
        self.weights: dict[str, str] = {}  # fingerprints by run
        self.option = "" if dataset == "mnist" else f" --dataset {dataset}"  # what other commands need to use it, too
        self.option += f' --data-dir "{os.path.abspath(os.path.expanduser(data_dir))}"' if data_dir else ""

    def load(self, run: str, results: str | None = None) -> dict[str, Any]:
        """The checkpoint of a trained model. Raises CheckpointError if there is none, if it is damaged, or if its
        weights are not those that report/results/<results, by default the run>.json was made with."""
        path, numbers = find_model(self.home, run), self.home.results / f"{results or run}.json"
        content = load_checkpoint(path, {"weights"})
        self.weights[run] = fingerprint(content["weights"])
        if read_json(numbers)["source"]["weights"].get(run) != self.weights[run]:
            raise CheckpointError(
                f"{path} and {numbers} are of different trainings; train '{run}' again to have both anew, or bring "
                "back the one that was replaced (own runs come before shipped ones)"
            )
        return content

    def vae(self, run: str, device: str = "cpu") -> VAE:
        """A trained model in eval mode, frozen. Raises CheckpointError, with the command that trains, if none fits."""
        config = Config.of_run(run)
        try:
            content = self.load(run)
            if different := config.differences(content["config"]):
                raise CheckpointError(f"its weights were trained with other settings ({', '.join(different)})")
            vae = config.make_vae()
            vae.load_state_dict(content["weights"])
        except (CheckpointError, RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{run}: {reason}; train it with: python {config.command}{self.option}") from error
        return vae.to(device).eval().requires_grad_(False)

    def models(self, configs: list[Config], device: str) -> Iterator[tuple[Config, VAE]]:
        """Those that are trained, one by one, each with the same seed: its numbers depend on no other model.

        Raises CheckpointError if none is.
        """
        there = trained(self.home)
        if not (found := [config for config in configs if config.run in there]):
            raise CheckpointError(f"no model is trained yet; train one with: python {configs[0].command}{self.option}")
        for config in tqdm(found, desc="models"):
            vae = self.vae(config.run, device)
            torch.manual_seed(0)
            yield config, vae

    def results(self, run: str) -> dict[str, Any]:
        """report/results/<run>.json, and the fingerprints of its weights as those of this source."""
        path, remedy = self.home.results / f"{run}.json", f"python {Config.of_run(run).command}{self.option}"
        if not os.path.isfile(path):
            raise CheckpointError(f"no results of '{run}' in {path.parent}; train it with: {remedy}")
        results = read_json(path)
        if results.get("run") != run or not results.get("history"):
            raise CheckpointError(f"{path}: not the result of a training of '{run}'; make it with: {remedy}")
        self.weights = results["source"]["weights"] | self.weights
        return results

    def stamp(self) -> dict[str, Any]:
        return {"command": self.command, "weights": self.weights}

    def save(self, name: str, results: dict[str, Any]) -> Path:
        """Write report/results/<name>.json with its source. Floats are cut to six significant digits.

        Raises ValueError for NaN or inf.
        """
        text = json.dumps(shortened({"source": self.stamp(), **results}), indent=1)
        path = self.home.results / f"{name}.json"
        write(path, lambda file: file.write(f"{text}\n".encode()))
        say(f"wrote {path}")
        return path


def fingerprint(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def write(path: Path, fill: Callable[[BinaryIO], Any]) -> None:
    """The one way to write a file: whole or not at all, so that a reader, or a crash, finds the old or the new one.

    Raises UserError naming the file if that cannot be done.
    """
    temporary = path.with_name(f".{path.name}-{token_hex(4)}.tmp")  # another process may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save raises the latter on a full disk
        remedy = "free some space, make its folder writable, or remove what is in its place"
        raise UserError(f"{path}: cannot be written ({error}); {remedy}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _replace(temporary: Path, path: Path, tries: int = 20) -> None:
    """os.replace, tried again for two seconds where another program holds the file for a moment."""
    for left in reversed(range(tries)):
        try:
            return os.replace(temporary, path)
        except PermissionError:
            if not left:
                raise
            time.sleep(0.1)


def read_json(path: Path) -> dict[str, Any]:
    """A result file. Raises CheckpointError naming it if it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable result ({error}); make it again") from error
    if not isinstance(content, dict) or not is_stamp(content.get("source")):
        raise CheckpointError(f"{path}: does not say what it was made from; make it again")
    return content


def is_stamp(source: Any) -> bool:
    """Whether this can be what Source.stamp gave."""
    kinds = {"command": str, "weights": dict}
    return isinstance(source, dict) and all(isinstance(source.get(name), kind) for name, kind in kinds.items())


@contextmanager
def open_run(folder: Path) -> Iterator[None]:
    """A run's folder for one process at a time; says before any work if it cannot be written."""
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is training '{folder.name}' in {folder}; wait for it to end") from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, NotImplementedError) or error.errno in NO_LOCKS:
            raise UserError(f"{folder / 'lock'}: its disk has no locks ({error}); move the project") from error
        raise UserError(f"cannot write to {folder} ({error}); make it writable or free some space") from error
    try:
        if (free := disk_usage(folder).free) < FREE:
            raise UserError(f"{folder} has {free / 2**20:.0f} MiB left on its disk; a run needs {FREE / 2**20:.0f}")
        yield
    finally:
        lock.release()


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    write(path, lambda file: torch.save({"format": FORMAT, **content}, file))


def load_checkpoint(path: Path, keys: set[str]) -> dict[str, Any]:
    """Read a file of save_checkpoint on the CPU. Nothing in it is executed.

    Raises CheckpointError, naming the file, if it is damaged or does not hold these keys.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch.load does not compare checksums
                raise CheckpointError(f"{path}: {damaged} is damaged; delete the file and train again")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason}); delete it and train again") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path}: format is {found}, expected {FORMAT}; delete it and train again")
    if not keys <= content.keys():
        raise CheckpointError(f"{path}: holds {sorted(content)}, expected {sorted(keys)}: it is of another kind")
    return content


def find_model(place: Home, run: str) -> Path:
    """The file of a trained model: one's own before the shipped one."""
    for path in (place.runs / run / "model.pt", place.shipped / f"{run}.pt"):
        if os.path.isfile(path):  # unlike Path.is_file, no error in a folder that may not be read
            return path
    runs = [name for name in trained(place) if not name.startswith("classifier")]
    raise CheckpointError(f"no trained run '{run}'; there are: {', '.join(runs) or 'none'}")


def trained(place: Home) -> list[str]:
    """The names of all trained runs, and of classifiers."""
    own, shipped = place.runs.glob("*/model.pt"), place.shipped.glob("*.pt")
    names = {path.parent.name for path in own if os.path.isfile(path)}
    return sorted(names | {path.stem for path in shipped if os.path.isfile(path)})
