"""MNIST as tensors: 50,000 training, 10,000 validation and 10,000 test images, always in the order of the files."""

import gzip
import hashlib
import os
import socket
import sys
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchvision.datasets import MNIST

from common.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = "MNIST_DIR"
TRAIN, VAL, TEST = 50_000, 10_000, 10_000

# MD5 of the extracted files; a .gz is compared by what it contains
CHECKSUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SHAPES = {
    "train-images-idx3-ubyte": (TRAIN + VAL, 28, 28),
    "train-labels-idx1-ubyte": (TRAIN + VAL,),
    "t10k-images-idx3-ubyte": (TEST, 28, 28),
    "t10k-labels-idx1-ubyte": (TEST,),
}


class Split(NamedTuple):
    """One part of the data: images x (N, 1, 28, 28), float32 in [0, 1], and labels y (N,), int64."""

    x: Tensor
    y: Tensor


class Mnist(NamedTuple):
    """The three parts, and the name of the data set they come from: "mnist" or "digits"."""

    name: str
    train: Split
    val: Split
    test: Split


def load_mnist(dataset: str = "auto", data_dir: Path | None = None) -> Mnist:
    """Load the data set.

    dataset: "mnist" wants MNIST or fails; "digits" is the small stand-in; "auto" is MNIST, or the stand-in (with a
    warning) where MNIST can neither be found nor downloaded. A damaged MNIST is an error in both.
    Raises DataError naming the file, what was expected and what to do.
    """
    if dataset == "digits":
        return _digits()
    for named_by, folder in (("--data-dir", data_dir), (f"${ENVIRONMENT}", os.environ.get(ENVIRONMENT))):
        if folder:
            if found := _files_in(Path(folder)):
                return _from_files(found)
            raise DataError(f"{named_by} is {folder}, where MNIST's four files are not; name their folder or none")
    places = [ROOT / "data", ROOT.parent / "shared" / "mnist"]
    for folder in places:
        if found := _files_in(folder):
            return _from_files(found)
    try:
        return _download(ROOT / "data")
    except OSError as error:
        message = (
            f"MNIST was not found in {', '.join(map(str, places))}, and could not be downloaded ({error}). Put its "
            f"four .gz files into one of these folders, or name their folder with --data-dir or ${ENVIRONMENT}."
        )
    if dataset == "mnist":
        raise DataError(message)
    print(f"{message} Going on with scikit-learn's digits as a stand-in: these are NOT MNIST.", file=sys.stderr)
    return _digits()


def _files_in(folder: Path) -> dict[str, Path]:
    """The four files in the folder, or in MNIST/raw below it, where torchvision puts them; {} if there is none."""
    for place in (folder, folder / "MNIST" / "raw"):
        found = {}
        for name in CHECKSUMS:
            for path in (place / name, place / f"{name}.gz"):
                if path.is_file():
                    found[name] = path
        if found:
            if missing := CHECKSUMS.keys() - found.keys():
                raise DataError(
                    f"{place} holds a part of MNIST only: {', '.join(sorted(missing))} (or .gz) missing; put them "
                    "there, or take the others away, too, to download all four"
                )
            return found
    return {}


def _from_files(found: dict[str, Path]) -> Mnist:
    arrays = {name: _read_idx(path, name) for name, path in found.items()}
    x, x_test = (torch.from_numpy(arrays[f"{part}-images-idx3-ubyte"]).unsqueeze(1) / 255 for part in ("train", "t10k"))
    y, y_test = (torch.from_numpy(arrays[f"{part}-labels-idx1-ubyte"]).long() for part in ("train", "t10k"))
    return Mnist("mnist", Split(x[:TRAIN], y[:TRAIN]), Split(x[TRAIN:], y[TRAIN:]), Split(x_test, y_test))


def _read_idx(path: Path, name: str) -> np.ndarray:
    """Read one IDX file, raw or .gz, and check that it is, byte for byte, the file of that name."""
    remedy = "put an intact copy in its place, or delete it and the other three to download all four"
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read or decompressed ({error}); {remedy}") from error
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    shape = SHAPES[name]
    # header: two zero bytes, 8 for unsigned bytes, the number of axes; then the length of each axis, big endian
    header = bytes((0, 0, 8, len(shape))) + b"".join(length.to_bytes(4, "big") for length in shape)
    if not content.startswith(header) or len(content) != len(header) + np.prod(shape):
        axes = content[3] if len(content) >= 16 else 0
        found = tuple(int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(min(axes, 3)))
        raise DataError(
            f"{path}: expected the {name} with shape {shape}, found shape {found} in a file of "
            f"{len(content)} bytes (MD5 {checksum}, expected {CHECKSUMS[name]}); {remedy}"
        )
    if checksum != CHECKSUMS[name]:
        raise DataError(f"{path}: expected MD5 {CHECKSUMS[name]}, found {checksum}; {remedy}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy()


def _download(target: Path) -> Mnist:
    """Download with torchvision into a temporary folder, which moves to target at once when it is complete."""
    target.mkdir(parents=True, exist_ok=True)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        with tempfile.TemporaryDirectory(prefix="download-", dir=target) as folder:
            MNIST(folder, download=True)
            found = _files_in(Path(folder))
            mnist = _from_files(found)
            os.replace(Path(folder) / "MNIST", target / "MNIST")
    except RuntimeError as error:  # what torchvision raises when no mirror answers
        raise ConnectionError(str(error).strip()) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return mnist


def _digits() -> Mnist:
    """scikit-learn's 1,797 digits of 8x8 pixels and 17 grey levels, enlarged to 20x20 inside 28x28, on 256 levels."""
    digits = load_digits()
    x = torch.from_numpy(digits.images).float().unsqueeze(1) / 16  # (1797, 1, 8, 8)
    x = pad(interpolate(x, size=(20, 20), mode="bilinear"), (4, 4, 4, 4))
    x = (x * 255).round() / 255
    y = torch.from_numpy(digits.target).long()
    return Mnist("digits", Split(x[:1197], y[:1197]), Split(x[1197:1497], y[1197:1497]), Split(x[1497:], y[1497:]))
