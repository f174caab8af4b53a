"""Files: whole or not at all, checked when read, and of one training."""

import errno
import io
import json
import math
import os
import pickle
import subprocess
import sys
import zipfile

from common import runs
from common.config import TASK_3, Config
from common.errors import CheckpointError, UsageError, UserError
from common.runs import Source, fingerprint, load_checkpoint, open_run, read_json, save_checkpoint, write

import pytest
import torch
from conftest import ROOT, raising

FLOATS = ["sigma_min", "learning_rate", "beta_1", "beta_2", "weight_decay", "ema_decay", "min_gain", "drop_factor"]
KEYS = {"weights"}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.pt"
    save_checkpoint(path, {"weights": {"a": torch.arange(1000.0)}})
    return path


def store(config, path=None, results=True):
    """A model and the results that belong to it."""
    vae, source = config.make_vae(), Source("mnist", config.command)
    path = path or source.home.runs / config.run / "model.pt"
    save_checkpoint(path, {"config": config.to_dict(), "weights": vae.state_dict()})
    if results:
        source.weights[config.run] = fingerprint(vae.state_dict())
        source.save(config.run, {})
    return vae, path


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("bombed",))


def flipped(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        data = max(archive.infolist(), key=lambda item: item.file_size)
    at = data.header_offset + data.file_size // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def saved(content):
    torch.save(content, file := io.BytesIO())
    return file.getvalue()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content[: len(content) // 2], "delete"),
        (lambda content: b"", "delete"),
        (lambda content: b"hello", "delete"),
        (flipped, "delete"),
        (lambda content: content[:30] + bytes([content[30] ^ 128]) + content[31:], "delete"),  # no UTF-8 in a name
        (lambda content: saved({"format": 0, "weights": {}}), "format is 0"),
        (lambda content: saved([1, 2]), "format is None"),
        (lambda content: saved({"format": runs.FORMAT}), r"expected \['weights'\]"),
        (lambda content: saved({"format": runs.FORMAT, "weights": Bomb()}), "delete"),
        (lambda content: pickle.dumps(Bomb()), "delete"),
    ],
)
def test_a_file_that_is_damaged_or_foreign_is_named_and_not_executed(path, damage, says, monkeypatch):
    assert torch.equal(load_checkpoint(path, KEYS)["weights"]["a"], torch.arange(1000.0))
    monkeypatch.chdir(path.parent)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=rf"x\.pt.*{says}"):
        load_checkpoint(path, KEYS)
    assert not (path.parent / "bombed").exists()


def test_model_comes_back_in_eval_mode_and_frozen_and_leaves_its_fingerprint(config, source):
    vae, _ = store(config)
    loaded = source.vae(config.run)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(torch.equal(value, vae.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert source.stamp() == {"command": source.command, "weights": {config.run: fingerprint(vae.state_dict())}}


def test_weights_of_other_settings_or_shapes_are_refused(config, source):
    _, path = store(config)
    content = torch.load(path, weights_only=True)
    torch.save(content | {"config": content["config"] | {"weight_decay": 0.5}}, path)  # a default has changed since
    with pytest.raises(CheckpointError, match=r"trained with other settings \(weight_decay\); train it with"):
        source.vae(config.run)
    content["weights"]["decoder.bias"] = torch.zeros(9)
    torch.save(content, path)
    source.weights[config.run] = fingerprint(content["weights"])
    source.save(config.run, {})
    with pytest.raises(CheckpointError, match=f"(?s){config.run}: .*size mismatch.*train it with"):
        source.vae(config.run)


def test_fault_37_weights_and_numbers_of_different_trainings_are_refused_by_name(config, source):
    shipped, _ = store(config, source.home.shipped / f"{config.run}.pt")
    torch.manual_seed(1)
    _, own = store(config, results=False)  # as after "git checkout .": own weights, shipped numbers
    with pytest.raises(CheckpointError, match=rf"model\.pt and .*{config.run}\.json are of different trainings"):
        source.vae(config.run)
    own.unlink()  # the shipped model stands in until there is an own one
    assert fingerprint(source.vae(config.run).state_dict()) == fingerprint(shipped.state_dict())
    mine, _ = store(config)
    assert fingerprint(source.vae(config.run).state_dict()) == fingerprint(mine.state_dict())
    own.unlink()  # as after deleting data/runs: shipped weights, own numbers
    with pytest.raises(CheckpointError, match=rf"{config.run}\.pt and .* different trainings.*train it with: python"):
        source.vae(config.run)


def test_missing_run_says_which_there_are_and_how_to_train_it(config, source):
    store(config, results=False)
    with pytest.raises(CheckpointError, match=rf"{config.run}\.json: not a readable result"):
        source.vae(config.run)
    command = "train it with: python task_2/train.py --likelihood beta --latent-dim 16 --eps 1e-05"
    with pytest.raises(CheckpointError, match=f"no trained run '.*'; there are: {config.run}; {command}$"):
        source.vae("beta-k16-eps=1e-05")


def test_two_settings_never_share_a_name_and_a_name_gives_its_settings():
    configs = [Config("gaussian"), TASK_3, Config("beta", eps=1e-5), Config("beta", eps=1.0000001e-5)]
    configs += [Config("categorical", bins=16), Config("gaussian", sigma_min=1 / 2550), Config("beta", seed=3)]
    assert Config("beta", weight_decay=0.25).run == "beta-k32-weight_decay=0.25"
    assert len({config.run for config in configs}) == len(configs)
    assert all(Config.of_run(config.run) == config for config in configs)
    own = {"beta": {"eps"}, "categorical": {"bins"}, "gaussian": {"sigma_min"}}
    for config in configs:  # files keep no constants of others, whose defaults may change; older files have them
        assert set(config.to_dict()) & {"bins", "eps", "sigma_min"} == own.get(config.likelihood, set())
        assert config.differences(config.to_dict() | {"max_epochs": 1}) == []
    assert Config("gaussian").differences(Config("gaussian").to_dict() | {"bins": 9, "sigma_min": 0.1}) == ["sigma_min"]
    assert config.differences(config.to_dict() | {"a setting that is gone": 1}) == ["a setting that is gone"]
    assert Config("gaussian", max_epochs=1).run == "gaussian-k32"  # it may go on
    assert Config("gaussian", max_epochs=1).command == "task_1/train.py --max-epochs 1"
    assert Config("bernoulli", seed=1).command == "task_2/train.py --likelihood bernoulli --seed 1"
    assert TASK_3.command == "task_3/train.py"
    for name in ("nonsense", "gaussian-k32-latent_dim=3"):
        with pytest.raises(UsageError, match=f"no run is named '{name}'; a name is like gaussian-k32"):
            Config.of_run(name)
    with pytest.raises(UsageError, match="give components, too"):
        Config("bernoulli", full_covariances=1)
    with pytest.raises(UsageError, match="bins, eps is no setting of 'gaussian'"):
        Config("gaussian", eps=1e-3, bins=9)
    with pytest.raises(UsageError, match="name is too long"):
        Config("gaussian", **dict.fromkeys(FLOATS, 1 / 3))
    with pytest.raises(UsageError, match="'poisson', expected one of gaussian, beta"):
        Config("poisson")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_saved_on_a_gpu_loaded_without(path):
    save_checkpoint(path, {"weights": torch.ones(3, device="cuda")})
    assert load_checkpoint(path, KEYS)["weights"].device.type == "cpu"


def test_killed_while_saving_the_previous_checkpoint_loads(path):
    program = (
        "import torch; from pathlib import Path; from common.runs import save_checkpoint\n"
        "print('ready', flush=True)\n"
        "while True: save_checkpoint(Path('x.pt'), {'weights': {'a': torch.ones(2_000_000)}})"
    )
    command, environment = [sys.executable, "-c", program], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=path.parent, env=environment) as process:
        process.stdout.readline()
        while not list(path.parent.glob("*.tmp")):
            assert process.poll() is None
        process.kill()
    assert load_checkpoint(path, KEYS)["weights"]["a"].numel() in (1000, 2_000_000)


def test_results_refuse_nan_and_have_no_noise_digits(source):
    with pytest.raises(ValueError, match="JSON compliant"):
        source.save("x", {"value": [math.nan]})
    assert not (source.home.results / "x.json").exists()
    path = source.save("x", {"value": 1 / 3, "n": 7})
    assert json.loads(path.read_text())["value"] == read_json(path)["value"] == 0.333333
    with pytest.raises(CheckpointError, match=r"no results of 'beta-k7' in .*; train it with: python task_2/train.py"):
        source.results("beta-k7")
    for content in ({"run": "beta-k8", "history": [1]}, {"run": "beta-k7"}):  # of another training; of none
        source.save("beta-k7", content)
        with pytest.raises(CheckpointError, match=r"beta-k7\.json: not the result of a training of 'beta-k7'; make"):
            source.results("beta-k7")


NO_RESULTS = ["", "<<<<<<< HEAD\n{}", "[]", "[" * 99_999, '{"a": 1}', '{"source": {}}']
NO_RESULTS += ['{"source": {"command": null, "weights": {}}}']


@pytest.mark.parametrize("content", NO_RESULTS)
def test_fault_43_a_result_that_is_none_is_named_and_a_byte_order_mark_is_no_fault(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"a\.json.*make it again"):
        read_json(path)
    path.write_text('{"source": {"command": "ä", "weights": {}}}', encoding="utf-8-sig")
    assert read_json(path)["source"]["command"] == "ä"


def test_fault_42_a_file_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"a\.json: cannot be written .*No space left.*free some space"):
        write(path, full)
    assert path.read_text() == "old"
    tries, real = [], os.replace

    def busy(*paths):
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError("held by another program")
        real(*paths)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(runs.time, "sleep", lambda seconds: None)
    write(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new"
    assert len(tries) == 3
    write(path, lambda file: file.write(b"new") and write(path, lambda other: other.write(b"two at once")))  # fault 47
    assert path.read_bytes() == b"new"
    monkeypatch.setattr(os, "replace", raising(PermissionError("held")))
    with pytest.raises(UserError, match="cannot be written"):
        write(path, lambda file: file.write(b"newer"))
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_two_processes_cannot_train_one_run(tmp_path):
    for _ in range(2):  # free again, once the first has ended
        with open_run(tmp_path / "a"), pytest.raises(UserError, match="another process"), open_run(tmp_path / "a"):
            pass


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "No locks available")])
def test_fault_47_a_disk_without_locks_is_said(tmp_path, monkeypatch, error):
    monkeypatch.setattr(runs.FileLock, "acquire", raising(error))
    with pytest.raises(UserError, match=r"lock: its disk has no locks"), open_run(tmp_path / "a"):
        pass


def test_folder_that_cannot_be_written_is_found_before_training(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write"), open_run(tmp_path / "runs" / "a"):
        pass
    monkeypatch.setattr("common.runs.FREE", 2**62)
    with pytest.raises(UserError, match="MiB left"), open_run(tmp_path / "a"):
        pass
