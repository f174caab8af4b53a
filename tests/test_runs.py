import json
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace

import pytest
import torch
from conftest import ROOT

from common import runs
from common.config import Config
from common.errors import CheckpointError
from common.runs import load_checkpoint, load_model, load_results, make_vae, save_checkpoint, save_model, save_results

KEYS = {"weights"}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.pt"
    save_checkpoint(path, {"weights": {"a": torch.arange(1000.0)}})
    return path


def stored_model(config, name="a"):
    folder = runs.RUNS / name
    folder.mkdir(parents=True)
    vae = make_vae(config)
    save_model(folder, name, "mnist", config, vae.state_dict())
    return vae, folder / "model.pt"


def test_what_is_saved_is_loaded(path):
    assert torch.equal(load_checkpoint(path, KEYS)["weights"]["a"], torch.arange(1000.0))


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped byte"])
def test_damaged_files_are_named(path, damage):
    content = bytearray(path.read_bytes())
    if damage == "flipped byte":
        with zipfile.ZipFile(path) as archive:
            data = max(archive.infolist(), key=lambda item: item.file_size)
        content[data.header_offset + data.file_size // 2] ^= 1
    damaged = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}
    path.write_bytes(damaged.get(damage, content))
    with pytest.raises(CheckpointError, match=r"x\.pt.*delete"):
        load_checkpoint(path, KEYS)


def test_older_format_and_wrong_keys_are_refused(path):
    with pytest.raises(CheckpointError, match=r"expected.*'history'"):
        load_checkpoint(path, {"history"})
    torch.save({"format": 0, "weights": {}}, path)
    with pytest.raises(CheckpointError, match="format is 0"):
        load_checkpoint(path, KEYS)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="format is none"):
        load_checkpoint(path, KEYS)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("bombed",))


@pytest.mark.parametrize("zipped", [True, False])
def test_foreign_pickle_is_not_executed(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    if zipped:
        torch.save({"format": 1, "weights": Bomb()}, "x.pt")
    else:
        (tmp_path / "x.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        load_checkpoint(tmp_path / "x.pt", KEYS)
    assert not (tmp_path / "bombed").exists()


def test_model_comes_back_in_eval_mode_and_frozen(config):
    vae, _ = stored_model(config)
    loaded, settings = load_model("a")
    assert settings == config
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(torch.equal(value, vae.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_weights_of_other_shapes_are_refused(config):
    _, path = stored_model(config)
    content = torch.load(path, weights_only=True)
    content["config"]["hidden"] = 9
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model("a")


def test_shipped_model_stands_in_until_there_is_an_own_one(config):
    _, path = stored_model(config)
    runs.SHIPPED.mkdir()
    path.rename(runs.SHIPPED / "a.pt")
    path.parent.rmdir()
    assert load_model("a")[1].seed == 0
    stored_model(replace(config, seed=5))
    assert load_model("a")[1].seed == 5


def test_missing_run_says_which_there_are(config):
    stored_model(config, "other")
    with pytest.raises(CheckpointError, match="no trained run 'a'; there are: other"):
        load_model("a")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_saved_on_a_gpu_loaded_without(path):
    save_checkpoint(path, {"weights": torch.ones(3, device="cuda")})
    assert load_checkpoint(path, KEYS)["weights"].device.type == "cpu"


def test_killed_while_saving_the_previous_checkpoint_loads(path):
    script = f"""
        import sys; sys.path.insert(0, {str(ROOT)!r})
        import torch
        from pathlib import Path
        from common.runs import save_checkpoint
        print("ready", flush=True)
        while True:
            save_checkpoint(Path({str(path)!r}), {{"weights": {{"a": torch.ones(2_000_000)}}}})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    process.stdout.readline()
    while not path.with_suffix(".tmp").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert load_checkpoint(path, KEYS)["weights"]["a"].numel() in (1000, 2_000_000)


def test_results_refuse_nan_and_have_no_noise_digits():
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON compliant"):
            save_results("x", {"value": [bad]})
    assert not (runs.RESULTS / "x.json").exists()
    path = save_results("x", {"value": 1 / 3, "n": 7})
    assert json.loads(path.read_text()) == load_results("x") == {"value": 0.333333, "n": 7}
    with pytest.raises(CheckpointError, match="no results of 'y'"):
        load_results("y")


def test_run_names():
    assert Config("gaussian").run_name("mnist") == "gaussian-k32"
    assert Config("beta", latent_dim=2, seed=3).run_name("mnist") == "beta-k2-seed3"
    assert Config("beta").run_name("digits") == "digits-beta-k32"
