"""Where MNIST comes from, what is checked, and what a user is told."""

import gzip
import hashlib
import http.client
import zlib
from shutil import copytree

from common import mnist
from common.errors import DataError
from common.mnist import load_mnist

import numpy as np
import pytest
import torch
from conftest import raising
from torchvision.datasets import MNIST

COUNTS = {"train": 12, "t10k": 5}
WANTED = r"expected the train-images-idx3-ubyte with shape \(12, 28, 28\) .*, found shape "


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with four small IDX files, and a loader that takes these for MNIST and looks nowhere else."""
    random = np.random.default_rng(0)
    folder = tmp_path / "small"
    folder.mkdir()
    for part, count in COUNTS.items():
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            name = f"{part}-{kind}-ubyte"
            header = bytes((0, 0, 8, len(shape))) + b"".join(n.to_bytes(4, "big") for n in shape)
            content = header + random.integers(0, 10, shape, dtype=np.uint8).tobytes()
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            monkeypatch.setitem(mnist.FILES, name, (shape, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(mnist, "TRAIN", 8)
    monkeypatch.setattr(mnist, "ROOT", tmp_path / "empty" / "root")
    monkeypatch.delenv(mnist.VARIABLE, raising=False)
    return folder


def test_split_is_by_index_and_divided_by_255(folder):
    data = load_mnist("mnist", folder)
    raw = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    x = torch.from_numpy(np.frombuffer(raw, np.uint8).copy()).view(12, 1, 28, 28) / 255
    assert torch.equal(data.train.x, x[:8])
    assert torch.equal(data.val.x, x[8:])
    assert [len(part.y) for part in data[1:]] == [8, 4, 5]
    assert data.train.x.dtype == torch.float32


@pytest.mark.parametrize("extracted", [False, True])
@pytest.mark.parametrize(
    ("source", "change", "says"),
    [
        ("train-images", lambda file: file[: len(file) // 2], "MD5|decompressed"),
        ("train-images", lambda file: b"", "MD5"),
        ("train-images", lambda file: file[:-100] + bytes([file[-100] ^ 1]) + file[-99:], "MD5|decompressed"),
        ("train-images", lambda file: file[:4] + b"\0\0\0\x0b" + file[8:-784], rf"{WANTED}\(11, 28|decompressed"),
        ("train-labels", bytes, rf"{WANTED}\(12,\)"),
        ("t10k-images", bytes, rf"{WANTED}\(5, 28, 28\)"),
    ],
)
def test_damaged_and_swapped_files_are_named_with_shape_checksum_and_remedy(folder, source, change, says, extracted):
    for path in list(folder.glob("*.gz")) * extracted:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    path = next(folder.glob("train-images*"))
    path.write_bytes(change(next(folder.glob(f"{source}*")).read_bytes()))
    for dataset in ("auto", "mnist"):
        with pytest.raises(DataError, match=f"{path.name}.*({says}).*delete it") as error:
            load_mnist(dataset, folder)
    if extracted:
        assert mnist.FILES["train-images-idx3-ubyte"][1] in str(error.value)
        assert hashlib.md5(path.read_bytes()).hexdigest() in str(error.value)


def test_missing_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.*missing; put them there"):
        load_mnist("mnist", folder)


def test_named_folder_comes_first_and_must_hold_mnist(folder, tmp_path, monkeypatch):
    (mnist.ROOT / "data").mkdir(parents=True)
    (mnist.ROOT / "data" / "train-images-idx3-ubyte.gz").write_bytes(b"a part of another MNIST")
    assert load_mnist("auto", folder).name == "mnist"
    names = ", ".join(mnist.FILES)  # fault 44: the remedy says which
    with pytest.raises(DataError, match=f"--data-dir is .*empty, where MNIST's four files are not: {names}, with or"):
        load_mnist("auto", tmp_path / "empty")
    monkeypatch.setenv(mnist.VARIABLE, str(folder))
    assert load_mnist("auto").name == "mnist"
    for place in (str(tmp_path / "nowhere"), "~nobody-of-this-name/nowhere"):
        monkeypatch.setenv(mnist.VARIABLE, place)
        with pytest.raises(DataError, match=r"\$MNIST_DIR is .*nowhere"):
            load_mnist("auto")


@pytest.mark.parametrize(
    "error",
    [RuntimeError(), OSError("reset"), http.client.IncompleteRead(b""), EOFError(), zlib.error(), ValueError("no url")],
)
def test_fault_40_every_failure_of_a_network_takes_the_documented_road(folder, monkeypatch, capsys, error):
    monkeypatch.setattr(MNIST, "download", raising(error))
    assert load_mnist("auto").name == "mnist5k"
    out = capsys.readouterr().out
    assert "NOT those of MNIST" in out
    assert "--dataset mnist5k" in out
    with pytest.raises(DataError, match=r"not found in .*data.*could not be downloaded .*--data-dir"):
        load_mnist("mnist")
    assert not any(path.is_file() for path in mnist.ROOT.rglob("*"))


@pytest.fixture
def downloads(folder, monkeypatch):
    """torchvision's download succeeds."""
    monkeypatch.setattr(MNIST, "download", lambda self: copytree(folder, self.raw_folder))
    monkeypatch.setattr(MNIST, "_check_exists", lambda self: True)
    monkeypatch.setattr(MNIST, "_load_data", lambda self: ([], []))


def test_fault_40_the_stand_in_does_not_win_over_mnist_that_has_just_arrived(folder, monkeypatch):
    def other_process_was_faster(self):
        copytree(folder, mnist.ROOT / "data" / "MNIST" / "raw")
        raise OSError("cannot be moved")

    monkeypatch.setattr(MNIST, "download", other_process_was_faster)
    assert load_mnist("auto").name == "mnist"


def test_fault_40_a_download_that_is_no_mnist_is_no_data(folder, downloads):
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>log in first</html>")
    assert load_mnist("auto").name == "mnist5k"
    assert not any(path.is_file() for path in mnist.ROOT.rglob("*"))


def test_fault_40_a_download_that_cannot_be_kept_is_used_all_the_same(downloads, capsys):
    (mnist.ROOT / "data").mkdir(parents=True)
    (mnist.ROOT / "data" / "MNIST").write_text("no folder")
    assert load_mnist().name == "mnist"
    assert "downloaded, but cannot be kept" in capsys.readouterr().out


def test_fault_44_files_that_people_have(folder, tmp_path, monkeypatch):
    expected = load_mnist("mnist", folder)

    def same(place):
        found = load_mnist("mnist", place)
        return all(torch.equal(a.x, b.x) for a, b in zip(found[1:], expected[1:], strict=True))

    images = folder / "train-images-idx3-ubyte.gz"
    (folder / "train-images-idx3-ubyte").write_bytes(gzip.decompress(images.read_bytes()))
    images.write_bytes(b"broken")  # a broken .gz beside the intact raw file
    assert same(folder)
    images.unlink()
    (folder / "train-images-idx3-ubyte").rename(folder / "train-images.idx3-ubyte")  # with a dot
    assert same(folder)
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.decompress(labels.read_bytes()))  # unpacked but still called .gz
    assert same(folder)
    (tmp_path / "home" / "MNIST").mkdir(parents=True)
    folder.rename(tmp_path / "home" / "MNIST" / "raw")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert same("~/MNIST")  # torchvision's own folder, and ~
    assert same(tmp_path / "home")


@pytest.mark.parametrize("there", [True, False])
def test_fault_40_interrupted_download_leaves_nothing_and_the_next_recovers(downloads, monkeypatch, there):
    def half(self):
        mnist.Path(self.raw_folder).mkdir(parents=True)
        (mnist.Path(self.raw_folder) / "train-images-idx3-ubyte.gz").write_bytes(b"half")
        raise KeyboardInterrupt

    raw = mnist.ROOT / "data" / "MNIST" / "raw"
    if there:  # an empty folder throws no download away
        raw.mkdir(parents=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MNIST, "download", half)
        load_mnist()
    assert not any(path.is_file() for path in mnist.ROOT.rglob("*"))
    assert load_mnist().name == "mnist"
    assert len(list(raw.iterdir())) == 4
    assert [path.name for path in (mnist.ROOT / "data").iterdir()] == ["MNIST"]


def test_the_stand_in_is_real_digits_in_turn_and_split_without_overlap(mnist5k):
    assert [len(part.x) for part in mnist5k[1:]] == [4000, 500, 500]
    for part in mnist5k[1:]:
        assert part.y[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
        assert part.x.shape[1:] == (1, 28, 28)
        assert torch.equal((part.x * 255).round() / 255, part.x)
    assert len(torch.cat([part.x for part in mnist5k[1:]]).unique(dim=0)) > 4990


def test_spread_is_over_the_whole_part(mnist5k):
    few = mnist5k.test.spread(7)
    assert torch.equal(few.x, mnist5k.test.x[[0, 71, 142, 214, 285, 357, 428]])
    assert len(few.y) == 7
    assert mnist5k.test.spread(10**15) is mnist5k.test


def test_real_mnist_where_it_is_found(real_mnist):
    assert [len(part.x) for part in real_mnist[1:]] == [50_000, 10_000, 10_000]
    assert real_mnist.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert real_mnist.val.y[:5].tolist() == [3, 8, 6, 9, 6]
    assert real_mnist.test.y[:5].tolist() == [7, 2, 1, 0, 4]
    black = (real_mnist.train.x == 0).float().mean().item()
    assert black == pytest.approx(0.809, abs=1e-3)
