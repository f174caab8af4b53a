"""Command lines, in this process: what they refuse, and what they say."""

import os
import signal

import pytest
import torch

from common import cli, runs
from common.errors import CheckpointError, UsageError, UserError


def options(*arguments):
    return cli.training_parser("doc", likelihood="bernoulli").parse_args(["--dataset", "digits", *arguments])


def exits(arguments, capsys, run=None):
    """Exit code and message of a training command line."""
    with pytest.raises(SystemExit) as error:
        cli.main(lambda: (run or cli.train)(options(*arguments)))
    return error.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--batch-size", value) for value in ("0", "-1", "1.5", "abc")),
        *(("--learning-rate", value) for value in ("0", "-1", "nan", "inf")),
        *(("--latent-dim", value) for value in ("0", "1")),
        *(("--ema-decay", "1"), ("--patience", "0"), ("--threads", "0"), ("--device", "abacus"), ("--such-flag",)),
        *(("--dataset", "cifar"), ("--min-gain", "nan"), ("--max-epochs", "-1"), ("--width", "1")),
    ],
    ids=" ".join,
)
def test_senseless_values_exit_with_2_and_one_line(arguments, capsys):
    code, message = exits(arguments, capsys)
    assert code == 2
    assert message.count("\n") == 1
    assert arguments[0].lstrip("-").replace("-", "_") in message.replace("-", "_")


def test_unknown_likelihood_names_the_known():
    with pytest.raises(UsageError, match="'poisson', expected one of gaussian, beta"):
        cli.train(cli.argparse.Namespace(**vars(options()) | {"likelihood": "poisson"}))


def test_every_setting_has_an_option_and_a_text():
    text = cli.training_parser("doc").format_help()
    for item in cli.fields(cli.Config):
        assert "--" + item.name.replace("_", "-") in text
    assert "None" not in text


def test_training_twice_says_so(capsys):
    arguments = ("--max-epochs", "0", "--width", "2", "--hidden", "2")
    assert cli.train(options(*arguments)) == "digits-bernoulli-k32"
    assert "digits-bernoulli-k32.json" in capsys.readouterr().out
    cli.train(options(*arguments))
    assert "has been trained before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "command"),
    [
        ("gaussian-k32", "python task_1/train.py"),
        ("beta-k16", "python task_2/train.py --likelihood beta --latent-dim 16"),
        (
            "digits-bernoulli-k2-seed1",
            "task_2/train.py --likelihood bernoulli --latent-dim 2 --seed 1 --dataset digits",
        ),
        ("nonsense", "named like gaussian-k32"),
    ],
)
def test_missing_run_gives_the_command_that_trains_it(run, command):
    with pytest.raises(CheckpointError, match=f"no trained run '{run}'.*{command}$"):
        cli.load_run(run)


def test_lost_results_are_made_again_without_training(tmp_path, monkeypatch, tiny_mnist, capsys):
    monkeypatch.setattr(cli, "load_mnist", lambda *_: tiny_mnist)
    cli.train(options("--max-epochs", "1"))
    path = runs.RESULTS / "digits-bernoulli-k32.json"
    first = path.read_text()
    cli.train(options("--max-epochs", "1"))
    assert "has been trained before" in capsys.readouterr().out
    path.unlink()
    cli.train(options("--max-epochs", "1"))
    assert path.read_text() == first


def test_interruptions_exit_with_130_and_the_command(capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    def terminated(_):
        os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    for script in (interrupted, terminated):
        code, message = exits([], capsys, script)
        assert code == 130
        assert "after its last complete epoch with: python " in message
    signal.signal(signal.SIGTERM, handler)


def test_mistakes_of_the_user_show_no_traceback_and_bugs_do(capsys):
    def mistake(_):
        raise UserError("the file is gone")

    def bug(_):
        raise KeyError("bug")

    code, message = exits([], capsys, mistake)
    assert code == 1
    assert message.endswith(": the file is gone\n")
    with pytest.raises(KeyError):
        cli.main(lambda: bug(None))


def test_automatic_device_is_one_that_there_is():
    _, device = cli.prepare(options())
    assert device == ("cuda" if torch.cuda.is_available() else "cpu")
