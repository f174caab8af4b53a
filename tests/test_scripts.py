"""The documented commands, run as a user runs them: from a folder with spaces, elsewhere, on the stand-in data."""

import json
import os
import runpy
import signal
import subprocess
import sys
import warnings

import pytest
from conftest import ROOT

SMALL = ["--max-epochs", "1", "--width", "4", "--hidden", "8"]
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for task in "1234" for path in ROOT.glob(f"task_{task}/*.py"))
# in an order in which each finds what it needs; "figures" that it writes and results
COMMANDS = {
    "task_1/train.py": (SMALL, ["results/digits-gaussian-k32.json"]),
    "task_1/curves.py": ([], ["figures/digits-gaussian-k32-curves.png"]),
    "task_1/reconstruct.py": ([], ["figures/digits-gaussian-k32-reconstructions.png"]),
    "task_1/sample.py": ([], ["figures/digits-gaussian-k32-samples.png"]),
    "task_1/benchmark.py": (["--batches", "2"], ["results/digits-benchmark.json"]),
    "task_2/train.py": (SMALL, [f"results/digits-{name}-k32.json" for name in ("beta", "bernoulli", "inflated")]),
    "task_2/train_classifier.py": ([], ["results/digits-classifier.json"]),
    "task_2/figures.py": (
        [],
        ["figures/digits-beta-k32-curves.png", "figures/digits-bernoulli-k32-binary-samples.png"],
    ),
    "task_2/sweep.py": (["--max-epochs", "1"], ["results/digits-sweep.json"]),
    "task_2/compare.py": (["--images", "10"], ["results/digits-comparison.json", "figures/digits-comparison.png"]),
    "task_3/train.py": (SMALL, ["results/digits-bernoulli-k2.json"]),
    "task_3/latent_2d.py": (
        [],
        ["figures/digits-bernoulli-k2-latent-2d.png", "results/digits-task_3a-bernoulli-k2.json"],
    ),
    "task_3/latent_pca.py": (
        [],
        ["figures/digits-bernoulli-k32-latent-pca.png", "results/digits-task_3b-bernoulli-k32.json"],
    ),
    "task_3/interpolate.py": (
        [],
        ["figures/digits-inflated-k32-interpolation.png", "results/digits-task_3c-inflated-k32.json"],
    ),
    "task_4/reconstruct.py": (["--images", "8"], ["results/digits-task_4a-inflated-k32.json"]),
    "task_4/posterior.py": (["--images", "8", "--starts", "1"], ["results/digits-task_4a-bernoulli-k2.json"]),
    "task_4/complete.py": (["--images", "8"], ["results/digits-task_4b-inflated-k32.json"]),
}


def run(project, script, *arguments, flags=()):
    """The script in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    command = [sys.executable, *flags, str(project / script), "--dataset", "digits", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def call(project, tmp_path, monkeypatch):
    """Run a script here (which saves imports), elsewhere, with the submission's modules, and warnings as errors."""
    own = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "common"}
    for name in own:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    handler = signal.getsignal(signal.SIGTERM)

    def call(script, *arguments):
        monkeypatch.setattr(sys, "argv", [str(project / script), *arguments])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runpy.run_path(str(project / script), run_name="__main__")

    yield call
    signal.signal(signal.SIGTERM, handler)
    for name in [name for name in sys.modules if name.split(".")[0] == "common"]:
        del sys.modules[name]
    sys.modules.update(own)


@pytest.fixture
def quick(project):
    """Task 4's optimisation with a tenth of its steps."""
    path = project / "common" / "inference.py"
    source = path.read_text()
    path.write_text(source.replace("WINDOW = 50", "WINDOW = 5"))
    yield
    path.write_text(source)


def test_no_script_is_missing_here():
    assert sorted(COMMANDS) == SCRIPTS


@pytest.mark.parametrize("script", COMMANDS)
def test_script_runs_and_writes_what_it_says(script, project, call, capsys):
    arguments, written = COMMANDS[script]
    call(script, "--dataset", "digits", *arguments)
    out = capsys.readouterr().out
    for name in written:
        path = project / "report" / name
        assert path.is_file()
        assert f"wrote {path}" in out
        if name.startswith("results"):
            json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("task_4/reconstruct.py", ["psi-reconstructions"]),
        ("task_4/complete.py", ["completions", "more-completions"]),
    ],
)
def test_task_4_shows_a_few_images_if_not_told_how_many_to_measure(script, names, project, quick, call):
    call(script, "--dataset", "digits")
    for name in names:
        assert (project / "report" / "figures" / f"digits-inflated-k32-{name}.png").is_file()


@pytest.mark.parametrize("flags", [("-O",), ("-W", "error")], ids=" ".join)
def test_in_a_process_of_its_own_with_other_flags(flags, project):
    result = run(project, "task_1/reconstruct.py", flags=flags)
    assert result.returncode == 0, result.stderr
    assert "digits-gaussian-k32-reconstructions.png" in result.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_from_any_directory(script, call, capsys):
    with pytest.raises(SystemExit) as error:
        call(script, "--help")
    assert error.value.code == 0
    assert "--data-dir" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "given", "says"),
    [
        (
            "task_1/sample.py",
            "digits-gaussian-k7",
            "train it with: python task_1/train.py --latent-dim 7 --dataset digits",
        ),
        ("task_3/latent_2d.py", "digits-inflated-k32", "has K = 32, this figure needs K = 2"),
        ("task_3/latent_pca.py", "digits-bernoulli-k2", "has K = 2, this figure needs K >= 10"),
    ],
)
def test_missing_or_unfit_runs_are_explained(script, given, says, call, capsys):
    with pytest.raises(SystemExit) as error:
        call(script, "--dataset", "digits", "--run", given)
    assert error.value.code in (1, 2)
    assert says in capsys.readouterr().err
