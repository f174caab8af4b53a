"""Command lines, in this process: what they refuse, and what they say."""

import io
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

from common import cli, training
from common.config import TASK_1, TASK_3, Config
from common.errors import UserError, say
from report.build import ANSWERS, REPORTED

import pytest
import torch
from conftest import raising


def options(*arguments):
    return cli.training_parser("doc", Config("bernoulli")).parse_args(["--dataset", "mnist5k", *arguments])


def exits(arguments, capsys, run=None):
    """Exit code and message of a training command line."""
    with pytest.raises(SystemExit) as error:
        cli.main(lambda: (run or cli.train_runs)(options(*arguments)))
    return error.value.code, capsys.readouterr().err


@pytest.fixture
def tiny(tiny_mnist, monkeypatch):
    monkeypatch.setattr(cli, "load_mnist", lambda *_: tiny_mnist)


SMALL = ("--max-epochs", "1", "--width", "4", "--hidden", "8", "--epoch-images", "50")
RUN = "bernoulli-k32-width=4-hidden=8-epoch_images=50"


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--batch-size", value) for value in ("0", "-1", "1.5", "abc")),
        *(("--learning-rate", value) for value in ("0", "-1", "nan", "inf")),
        *(("--latent-dim", value) for value in ("0", "1", "1000000")),
        *(("--ema-decay", "1"), ("--patience", "0"), ("--threads", "0"), ("--device", "abacus"), ("--such-flag",)),
        *(("--dataset", "cifar"), ("--min-gain", "nan"), ("--max-epochs", "-1"), ("--width", "1"), ("--bins", "257")),
        # fault 49: numbers without bounds, devices that torch knows and cannot use
        *(("--seed", "20000000000000"), ("--seed", "1e20"), ("--seed", "-1"), ("--threads", "100000")),
        *(("--device", "meta"), ("--device", "hpu"), ("--device", "cuda:99"), ("--eps", "0.001")),
    ],
    ids=" ".join,
)
def test_fault_49_senseless_values_exit_with_2_and_one_line(arguments, capsys):
    code, message = exits(arguments, capsys)
    assert code == 2
    assert message.count("\n") == 1
    assert arguments[0].lstrip("-").replace("-", "_") in message.replace("-", "_")


@pytest.mark.parametrize("value", ["--step 0", "--step nan", "--step inf", "--seed -1", "--seed 20000000000000"])
def test_numbers_of_other_scripts_are_bounded_too(value, capsys):
    parser = cli.run_parser("doc", "gaussian-k32", step=(cli.number(0.01, 0.5, float), 0.1, "of a grid"))
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(value.split())
    assert capsys.readouterr().err.count("\n") == 1


def test_a_result_has_the_command_that_makes_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(cli.ROOT / "task_1" / "sample.py")])
    parser = cli.run_parser("doc", "gaussian-k32")
    given = parser.parse_args(["--seed", "3", "--threads", "1", "--device", "cpu", "--data-dir", "/x"])
    assert cli.command(given) == "task_1/sample.py --run gaussian-k32 --seed 3"
    asked = ["--run", "beta-k032-eps=1e-5"]  # is found by the name that it has
    assert cli.command(parser.parse_args(asked)) == "task_1/sample.py --run beta-k32-eps=1e-05"
    assert cli.command(cli.parser("doc").parse_args([])) == "task_1/sample.py"
    assert "~nobody-of-this-name" in cli.Source("mnist", "", Path("~nobody-of-this-name")).option  # a home that is not


def test_what_a_user_sees_of_a_training_and_that_lost_results_are_made_again(tiny, tmp_path, capsys, monkeypatch):
    cli.train_runs(options(*SMALL, "--data-dir", str(tmp_path / "my images")))
    out = capsys.readouterr().out
    assert "epoch   1: ELBO -" in out
    assert "KL " in out
    assert "learning rate 0.002; " in out
    assert f"{RUN} ended after 1 epochs, because --max-epochs is 1" in out
    assert f'task_2/figures.py --run {RUN} --dataset mnist5k --data-dir "{tmp_path / "my images"}"' in out
    path = tmp_path / "data" / "mnist5k" / "results" / f"{RUN}.json"
    first = path.read_text()
    path.unlink()
    monkeypatch.setattr(training, "version", lambda package: "of another day")
    cli.train_runs(options(*SMALL))
    assert path.read_text() == first
    assert "epoch   1" not in capsys.readouterr().out
    cli.train_runs(options(*SMALL, "--max-epochs", "0"))
    assert f"{RUN} ended after 1 epochs, because --max-epochs is 0 and it had more already" in capsys.readouterr().out


@pytest.mark.parametrize("config", [TASK_1, TASK_3, *map(Config, REPORTED)], ids=lambda config: config.run)
def test_the_figures_that_a_training_names_are_those_of_the_build(config, tiny_mnist, monkeypatch, capsys):
    test = {"elbo": -1.0, "elbo_se": 0.1, "kl": 1.0}
    results = {"history": [{}], "best_epoch": 0, "test": test, "stopped_by": "patience"}
    monkeypatch.setattr(training, "train", lambda *_: (results, {"a": torch.ones(1)}))
    training.train_run(config, tiny_mnist, cli.Source("mnist5k", config.command), "cpu")
    lines = [line.removesuffix(" --dataset mnist5k") for line in capsys.readouterr().out.splitlines()]
    named = {line.removeprefix("    python ") for line in lines if line.startswith("    python ")}
    assert named
    assert named <= {step.command for step in ANSWERS}


@pytest.mark.parametrize("end", [BrokenPipeError, UnicodeEncodeError("cp1252", "ä", 0, 1, "no such letter")])
def test_fault_41_output_that_nobody_can_read_loses_nothing(tiny, tmp_path, monkeypatch, end):
    monkeypatch.setattr(sys.stdout, "write", raising(end))
    cli.train_runs(options(*SMALL))
    monkeypatch.undo()
    folder = tmp_path / "data" / "mnist5k"
    assert (folder / "runs" / RUN / "model.pt").is_file()
    assert (folder / "results" / f"{RUN}.json").is_file()


def test_fault_42_a_folder_for_results_that_cannot_be_written_is_found_first(tiny, tmp_path, monkeypatch):
    (tmp_path / "data" / "mnist5k").mkdir(parents=True)
    (tmp_path / "data" / "mnist5k" / "results").write_text("a file where the folder should be")
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("trained for nothing"))
    with pytest.raises(UserError, match=r"cannot write to .*results.*make it writable"):
        cli.train_runs(options(*SMALL))


def test_fault_45_no_output_at_all_and_letters_that_a_console_lacks_are_no_fault(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    say("wrote /home/Zoë/a.png")
    assert console.buffer.getvalue() == b"wrote /home/Zo?/a.png\n"
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    cli.main(lambda: say("done"))
    assert None not in (sys.stdout, sys.stderr)


FULL = ": memory is full; end what else uses it, or take smaller settings, or --device cpu\n"


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        (raising(KeyboardInterrupt()), 130, "goes on or starts again: python "),
        (lambda _: signal.raise_signal(signal.SIGTERM), 130, "goes on or starts again: python "),
        (raising(UserError("the file is gone")), 1, ": the file is gone\n"),
        (raising(torch.OutOfMemoryError("CUDA out of memory")), 1, FULL),
        (lambda _: torch.empty(2**60), 1, FULL),
    ],
)
def test_fault_46_what_ends_a_script_is_one_true_line(script, code, says, capsys):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    found, message = exits([], capsys, script)
    assert found == code
    assert says in message
    assert message.strip().count("\n") == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_bugs_show_a_traceback():
    for bug in (KeyError, RuntimeError):
        with pytest.raises(bug):
            cli.main(raising(bug("bug")))


@pytest.mark.parametrize("system", [TypeError, AttributeError, OSError])  # Windows; macOS or musl; no C library
def test_memory_is_kept_where_that_can_be_asked_for(monkeypatch, system):
    asked = []
    monkeypatch.setattr(cli.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=lambda *pair: asked.append(pair)))
    cli.keep_memory()
    assert dict(asked).keys() == {-1, -3}
    monkeypatch.setattr(cli.ctypes, "CDLL", raising(system))
    cli.keep_memory()
