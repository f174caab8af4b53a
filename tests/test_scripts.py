"""The documented commands, run as a user runs them: from the unpacked zip, elsewhere, on the stand-in."""

import json
import os
import subprocess
import sys
import zipfile

from common.config import TASK_3
from report.build import stamp_of

import pytest
from conftest import ROOT, STEPS, short, written

SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("task_*", "report/studies")
    for path in ROOT.glob(f"{folder}/*.py")
    if "cli.main(main)" in path.read_text(encoding="utf-8")
)
STAND_IN = ("--dataset", "mnist5k")


def python(*arguments, cwd=None, **environment):
    """A process of its own, without a display."""
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"} | environment
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=environment)


def test_no_script_is_missing_here():
    assert sorted({step.command.split()[0] for step in STEPS}) == SCRIPTS


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.command)
def test_script_runs_and_writes_what_it_says(step, made, project):
    for path in written(step, project / "data" / "mnist5k"):
        assert path.is_file()
        assert f"wrote {path}" in made
        assert {*step.command.split()[:3], *short(step)} <= set(stamp_of(path)["command"].split())
        if path.suffix == ".json":
            json.loads(path.read_text(), parse_constant=pytest.fail)


def test_nothing_of_the_stand_in_lands_among_mnists(made, project):
    with zipfile.ZipFile(project.with_suffix(".zip")) as archive:
        unpacked = set(archive.namelist())
    for folder in ("report/results", "report/figures", "data/shipped"):
        assert {path.relative_to(project).as_posix() for path in (project / folder).iterdir()} <= unpacked
    assert not (project / "data" / "runs").exists()


@pytest.mark.parametrize("flags", [("-O",), ("-W", "error")], ids=" ".join)
def test_in_a_process_of_its_own_with_other_flags(flags, made, project):
    result = python(*flags, project / "task_1/reconstruct.py", *STAND_IN)
    assert result.returncode == 0, result.stderr
    assert "gaussian-k32-reconstructions.png" in result.stdout


def test_fault_39_and_45_the_users_environment_changes_no_byte(made, project, tmp_path):
    (tmp_path / "matplotlibrc").write_text("image.origin: lower\nfont.size: 30\nbackend: qtagg\n")
    path = project / "data" / "mnist5k" / "figures" / "gaussian-k32-samples.png"
    before = path.read_bytes()
    odd = {"MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "module://not_installed", "LC_ALL": "C", "PYTHONUTF8": "0"}
    result = python(project / "task_1/sample.py", *STAND_IN, **odd)
    assert result.returncode == 0, result.stderr
    assert path.read_bytes() == before


def test_fault_41_nobody_reads_the_output(made, project):
    command = [sys.executable, str(project / "task_1" / "sample.py"), *STAND_IN]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for end, code in (([], 0), (["--run", "gaussian-k7"], 1)):
        process = subprocess.Popen([*command, *end], env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        assert len(process.stderr.read().splitlines()) == code
        process.stderr.close()
        assert process.wait() == code
    bar = "import common; from tqdm import tqdm; print(*tqdm(range(3)))"  # a script's, which writes to stderr
    process = subprocess.Popen([sys.executable, "-c", bar], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stderr.close()
    assert process.stdout.read().split() == [b"0", b"1", b"2"]
    process.stdout.close()
    process.wait()


def test_fault_46_ctrl_c_while_modules_are_loaded_is_one_line(project):
    result = python("-c", "import common; raise KeyboardInterrupt", cwd=project)
    assert result.stderr == "interrupted\n"
    assert result.returncode != 0
    result = python("-S", "task_1/train.py", cwd=project)  # without installed packages
    assert "in the virtual environment: pip install -r requirements.txt" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_entry_of_likelihoods_need_not_be_a_class(project):
    entry = "from common.likelihoods import *; LIKELIHOODS['coarse'] = lambda: CategoricalLikelihood(16)"
    result = python("-c", f"{entry}; from common.config import *; print(ON_GREY_LEVELS[-1].run)", cwd=project)
    assert result.stdout == "coarse-k32\n", result.stderr


def test_fault_47_four_figure_scripts_at_once(made, project):
    command = [sys.executable, str(project / "task_1" / "sample.py"), *STAND_IN, "--threads", "1"]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(4)]
    assert [(process.communicate()[1], process.returncode) for process in processes] == [(b"", 0)] * 4
    assert not list((project / "data" / "mnist5k" / "figures").glob("*.tmp"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_from_any_directory(script, call, capsys):
    with pytest.raises(SystemExit) as error:
        call(script, "--help")
    assert error.value.code == 0
    assert "--data-dir" in capsys.readouterr().out


def test_fault_50_help_loads_nothing_that_it_does_not_need(project):
    program = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print({'torchvision', 'sklearn', 'scipy', 'matplotlib', 'mlxtend', 'pandas'} & set(sys.modules))"
    )
    result = python("-c", program, project / "task_1" / "train.py")
    assert result.stdout.splitlines()[-1] == "set()", result.stderr


@pytest.mark.parametrize(
    ("script", "given", "says"),
    [
        (
            "task_1/sample.py",
            "--run gaussian-k7",
            "train it with: python task_1/train.py --latent-dim 7 --dataset mnist5k",
        ),
        ("task_1/curves.py", "--run gaussian-k7", "python task_1/train.py --latent-dim 7 --dataset mnist5k"),
        ("task_3/latent_2d.py", "--run inflated-k32", "does not fit: this script needs K = 2; leave --run out"),
        ("task_3/latent_pca.py", f"--run {TASK_3.run}", "needs K >= 10"),
        ("task_4/complete.py", "--run neighbours-k32", "needs pixels that are independent given z"),
        ("report/studies/benchmark.py", "--device cuda", "how fast the CPU is; leave --device out"),
    ],
)
def test_missing_or_unfit_runs_and_devices_are_explained(script, given, says, made, call, capsys):
    with pytest.raises(SystemExit) as error:
        call(script, *STAND_IN, *given.split())
    assert error.value.code in (1, 2)
    assert says in capsys.readouterr().err


def test_curves_and_samples_need_no_images(call, project, capsys):
    """Without MNIST they show its shipped run."""
    if (ROOT / "data" / "runs" / "gaussian-k32" / "model.pt").is_file():
        pytest.skip("a training of one's own has replaced it")
    for script in ("task_1/curves.py", "task_1/sample.py"):
        call(script, "--data-dir", "/nowhere")
        assert f"wrote {project / 'report' / 'figures'}" in capsys.readouterr().out
