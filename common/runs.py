"""Runs on disk: checkpoints that are written whole or not at all and checked when read, and result files.

data/runs/<run>/state.pt    everything after the last complete epoch, to go on from
data/runs/<run>/model.pt    the best weights, written when training has ended
data/shipped/<run>.pt       the same for the runs of the report; used where there is no run of one's own
report/results/<name>.json  numbers
"""

import hashlib
import json
import math
import os
import pickle
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage
from typing import Any

import torch
from filelock import FileLock, Timeout

from common.config import Config
from common.errors import CheckpointError, UserError
from common.mnist import ROOT
from common.vae import VAE

RUNS = ROOT / "data" / "runs"
SHIPPED = ROOT / "data" / "shipped"
RESULTS = ROOT / "report" / "results"
FORMAT = 1  # of the files; raised when old ones can no longer be read
FREE = 200 * 2**20  # bytes of disk that a training needs at most


@contextmanager
def open_run(run: str) -> Iterator[Path]:
    """The folder of a run, for one process at a time; says before any work if it cannot be written."""
    folder = RUNS / run
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is training '{run}' in {folder}; wait for it to end") from None
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error}); make it writable or free some space") from error
    try:
        if (free := disk_usage(folder).free) < FREE:
            raise UserError(f"{folder} has {free / 2**20:.0f} MiB left on its disk; a run needs {FREE / 2**20:.0f}")
        yield folder
    finally:
        lock.release()


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write atomically: a reader, or a crash, finds the old file or the new one."""
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path, keys: set[str]) -> dict[str, Any]:
    """Read a file of save_checkpoint on the CPU. Nothing in it is executed.

    Raises CheckpointError, naming the file, if it is damaged or does not hold exactly these keys.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch.load does not compare checksums
                raise CheckpointError(f"{path}: {damaged} is damaged; delete the file and train again")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason}); delete it and train again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format", "none") if isinstance(content, dict) else "none"
        raise CheckpointError(f"{path}: format is {found}, expected {FORMAT}; delete it and train again")
    if content.keys() != keys | {"format"}:
        raise CheckpointError(f"{path}: holds {sorted(content)}, expected {sorted(keys)}: it is of another kind")
    return content


def save_model(folder: Path, run: str, dataset: str, config: Config, weights: dict[str, torch.Tensor]) -> None:
    content = {"run": run, "dataset": dataset, "config": config.to_dict(), "weights": weights}
    save_checkpoint(folder / "model.pt", content)


def find_model(run: str) -> Path:
    """The file of a trained model: one's own before the shipped one."""
    path = next((path for path in (RUNS / run / "model.pt", SHIPPED / f"{run}.pt") if path.is_file()), None)
    if path is None:
        raise CheckpointError(f"no trained run '{run}'; there are: {', '.join(trained_runs()) or 'none'}")
    return path


def load_model(run: str, device: torch.device | str = "cpu") -> tuple[VAE, Config]:
    """A trained model in eval mode, with its settings.

    Raises CheckpointError if there is none, or saying what is wrong with its file.
    """
    path = find_model(run)
    content = load_checkpoint(path, {"run", "dataset", "config", "weights"})
    try:
        config = Config(**content["config"])
        vae = make_vae(config)
        vae.load_state_dict(content["weights"])
    except (TypeError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path}: does not fit this model ({error}); delete it and train again") from error
    return vae.to(device).eval().requires_grad_(False), config


def make_vae(config: Config) -> VAE:
    return VAE(config.likelihood, config.latent_dim, config.width, config.hidden)


def trained_runs() -> list[str]:
    return sorted({p.parent.name for p in RUNS.glob("*/model.pt")} | {p.stem for p in SHIPPED.glob("*.pt")})


def sources(runs: Iterable[str]) -> dict[str, str]:
    """A fingerprint of each run's settings and metrics, by which a result or figure knows what it was made from."""
    fingerprints = {}
    for run in runs:
        results = load_results(run)
        metrics = [[row["train"], row["val"]] for row in results["history"]]
        content = json.dumps([results["settings"], metrics, results["test"]])
        fingerprints[run] = hashlib.sha256(content.encode()).hexdigest()[:12]
    return fingerprints


def save_results(name: str, results: dict[str, Any], *runs: str) -> Path:
    """Write report/results/<name>.json, with the fingerprints of the runs that the results were measured on.

    Floats are cut to six significant digits. Raises ValueError for NaN or inf.
    """
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = {"source": sources(runs), **results} if runs else results
    text = json.dumps(_shorten(results), indent=1, allow_nan=False)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    os.replace(temporary, path)
    print(f"wrote {path}")
    return path


def load_results(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise CheckpointError(f"no results of '{name}' in {RESULTS}; the run was not trained to its end here")
    return json.loads(path.read_text())


def _shorten(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shorten(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shorten(item) for item in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.6g}")
    return value
