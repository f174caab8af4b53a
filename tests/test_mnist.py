import gzip
import hashlib

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from common import mnist
from common.errors import DataError
from common.mnist import load_mnist

COUNTS = {"train": 12, "t10k": 5}


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
            monkeypatch.setitem(mnist.CHECKSUMS, name, hashlib.md5(content).hexdigest())
            monkeypatch.setitem(mnist.SHAPES, name, shape)
    monkeypatch.setattr(mnist, "TRAIN", 8)
    monkeypatch.setattr(mnist, "ROOT", tmp_path / "empty" / "root")
    monkeypatch.delenv(mnist.ENVIRONMENT, raising=False)
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("Error downloading")

    monkeypatch.setattr(MNIST, "download", refuse)


def extract(folder):
    for path in list(folder.glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def test_split_is_by_index_and_divided_by_255(folder):
    data = load_mnist("mnist", folder)
    raw = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    x = torch.from_numpy(np.frombuffer(raw, np.uint8).copy()).view(12, 1, 28, 28) / 255
    assert torch.equal(data.train.x, x[:8])
    assert torch.equal(data.val.x, x[8:])
    assert [len(part.y) for part in data[1:]] == [8, 4, 5]
    assert data.train.x.dtype == torch.float32


def test_raw_files_give_the_same_and_so_does_torchvisions_layout(folder, tmp_path):
    before = load_mnist("mnist", folder)
    extract(folder)
    (tmp_path / "root" / "MNIST").mkdir(parents=True)
    folder.rename(tmp_path / "root" / "MNIST" / "raw")
    after = load_mnist("mnist", tmp_path / "root")
    assert all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in zip(before[1:], after[1:], strict=True))


def test_environment_variable_names_the_folder(folder, monkeypatch):
    monkeypatch.setenv(mnist.ENVIRONMENT, str(folder))
    assert load_mnist().name == "mnist"


@pytest.mark.parametrize("extracted", [False, True])
@pytest.mark.parametrize("damage", ["truncated", "empty", "one byte"])
def test_damaged_files_are_named_with_checksum_and_remedy(folder, damage, extracted):
    if extracted:
        extract(folder)
    path = next(folder.glob("train-images*"))
    content = bytearray(path.read_bytes())
    if damage == "one byte":
        content[-100] ^= 1
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "one byte": content}[damage])
    with pytest.raises(DataError, match=f"{path.name}.*(MD5|decompressed).*delete it") as error:
        load_mnist("auto", folder)
    if extracted:
        assert mnist.CHECKSUMS["train-images-idx3-ubyte"] in str(error.value)
        assert hashlib.md5(path.read_bytes()).hexdigest() in str(error.value)


@pytest.mark.parametrize(
    ("source", "target"),
    [("train-labels-idx1", "train-images-idx3"), ("t10k-images-idx3", "train-images-idx3")],
)
def test_swapped_files_are_found_by_their_shape(folder, source, target):
    (folder / f"{target}-ubyte.gz").write_bytes((folder / f"{source}-ubyte.gz").read_bytes())
    with pytest.raises(DataError, match=r"expected the train-images-idx3-ubyte with shape \(12, 28, 28\)"):
        load_mnist("mnist", folder)


def test_one_image_too_few_is_found(folder):
    extract(folder)
    path = folder / "train-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:4] + (11).to_bytes(4, "big") + content[8:-784])
    with pytest.raises(DataError, match=r"found shape \(11, 28, 28\)"):
        load_mnist("mnist", folder)


def test_missing_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.*missing; put them there"):
        load_mnist("mnist", folder)


def test_named_folder_comes_first_and_must_hold_mnist(folder, tmp_path, monkeypatch):
    (mnist.ROOT / "data").mkdir(parents=True)
    (mnist.ROOT / "data" / "train-images-idx3-ubyte.gz").write_bytes(b"a part of another MNIST")
    assert load_mnist("auto", folder).name == "mnist"
    with pytest.raises(DataError, match=r"--data-dir is .*empty, where MNIST's four files are not"):
        load_mnist("auto", tmp_path / "empty")
    monkeypatch.setenv(mnist.ENVIRONMENT, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"\$MNIST_DIR is .*nowhere"):
        load_mnist("auto")


def test_without_data_and_network_auto_goes_on_with_digits(folder, no_network, capsys):
    data = load_mnist("auto")
    assert data.name == "digits"
    assert "NOT MNIST" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"not found in .*data.*--data-dir"):
        load_mnist("mnist")
    assert not any(path.is_file() for path in mnist.ROOT.rglob("*"))


def test_interrupted_download_leaves_nothing_and_the_next_recovers(folder, monkeypatch):
    def half(self):
        (mnist.Path(self.raw_folder)).mkdir(parents=True)
        (mnist.Path(self.raw_folder) / "train-images-idx3-ubyte.gz").write_bytes(b"half")
        raise KeyboardInterrupt

    def whole(self):
        mnist.Path(self.raw_folder).mkdir(parents=True)
        for path in folder.iterdir():
            (mnist.Path(self.raw_folder) / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(MNIST, "download", half)
    with pytest.raises(KeyboardInterrupt):
        load_mnist()
    assert not list((mnist.ROOT / "data").iterdir())
    monkeypatch.setattr(MNIST, "download", whole)
    monkeypatch.setattr(MNIST, "_check_exists", lambda self: True)
    monkeypatch.setattr(MNIST, "_load_data", lambda self: ([], []))
    assert load_mnist().name == "mnist"
    assert len(list((mnist.ROOT / "data" / "MNIST" / "raw").iterdir())) == 4


def test_digits_are_on_the_256_levels_and_split_without_overlap():
    data = load_mnist("digits")
    assert sum(len(part.x) for part in data[1:]) == 1797
    for part in data[1:]:
        assert part.x.shape[1:] == (1, 28, 28)
        assert part.x.min() == 0
        assert part.x.max() == 1
        assert torch.equal((part.x * 255).round() / 255, part.x)


def test_real_mnist_where_it_is_found(monkeypatch):
    def no_network(*arguments):
        raise OSError("no test needs the network")

    monkeypatch.setattr(mnist, "_download", no_network)
    try:
        data = load_mnist("mnist")
    except DataError as error:
        if "was not found" not in str(error):
            raise
        pytest.skip("MNIST is not here")
    assert [len(part.x) for part in data[1:]] == [50_000, 10_000, 10_000]
    assert data.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.val.y[:5].tolist() == [3, 8, 6, 9, 6]
    assert data.test.y[:5].tolist() == [7, 2, 1, 0, 4]
    black = (data.train.x == 0).float().mean().item()
    assert black == pytest.approx(0.809, abs=1e-3)
