import math
from dataclasses import replace

import pytest
import torch
from conftest import SMALL
from tqdm import tqdm

from common import training
from common.config import Config
from common.errors import UserError
from common.likelihoods import LIKELIHOODS
from common.runs import load_model, open_run, save_model, save_results
from common.training import EarlyStopping, evaluate, fit, learning_rate_drops, stopping_criterion

RESULT_KEYS = [
    *("run", "dataset", "likelihood", "latent_dim", "parameters", "settings", "history", "best_epoch", "stopped_by"),
    *("test", "seconds", "versions", "threads"),
]


def metrics(results):
    return [{part: row[part] for part in ("epoch", "train", "val")} for row in results["history"]]


def weights(run):
    return load_model(run)[0].state_dict()


def train(config, data, folder):
    """As cli.train does it: the results, or None if there is nothing left to do."""
    folder.mkdir(parents=True, exist_ok=True)
    fitted = fit(config, data, folder)
    if fitted is None:
        return None
    save_model(folder, folder.name, data.name, config, fitted[1])
    return fitted[0]


def ends_at(values, **settings):
    stopping = EarlyStopping(**{"patience": 3, "min_gain": 0.01, "drops": 0} | settings)
    for epoch, value in enumerate(values):
        stopping.update(value)
        if stopping.stop:
            return epoch
    return None


def test_stopping_on_synthetic_curves():
    assert ends_at([0, 50, 100] + [100] * 9) == 5  # a plateau: epochs 3, 4 and 5 bring nothing
    assert ends_at([0, 50, 100, 100.3, 100.6, 100.9, 101]) == 5  # rising by less than 1 % of 100 in all
    assert ends_at([0, 50, 100, 100, 100, 101.1, 101, 101]) is None  # the last epoch of patience brings enough
    assert ends_at([0, 50, 100, math.nan, math.nan, math.nan]) == 5
    assert ends_at([0, *range(1, 100)], min_gain=0.0) is None
    assert ends_at([-1000, -950, -900] + [-900] * 9) == 5  # only differences count


def test_an_elbo_that_creeps_up_for_longer_needs_more_gain():
    shares = [stopping_criterion(Config(name, min_gain=0.001)).min_gain for name in ("bernoulli", "inflated", "beta")]
    assert shares == [0.001, 0.002, 0.012]


def test_stopping_after_drops_and_the_best_epoch():
    values = [0, 100, 100, 100, 100, 130, 130.5, 130, 130]
    assert ends_at(values, drops=1) == 8
    stopping = EarlyStopping(patience=3, min_gain=0.01, drops=1)
    assert [stopping.update(value) for value in values] == [True, True, False, False, False, True, True, False, False]
    assert stopping.plateaus == 2


def test_drops_are_found_again_in_the_history(config):
    values = [0, 100, 100, 100, 100, 130, 130.5, 130, 130]
    history = [{"epoch": epoch, "val": {"elbo": value}} for epoch, value in enumerate(values)]
    for drops, epochs in ((2, [4, 8]), (1, [4]), (0, [])):
        settings = replace(config, likelihood="bernoulli", patience=3, min_gain=0.01, drops=drops).to_dict()
        assert learning_rate_drops({"settings": settings, "history": history}) == epochs


def test_run_ends_by_patience_and_keeps_the_best_weights(tiny_mnist, tmp_path, config):
    settings = replace(config, max_epochs=30, min_gain=0.5, patience=2, drops=1)
    results = train(settings, tiny_mnist, tmp_path / "runs" / "bernoulli-k3")
    assert results["stopped_by"] == "patience"
    assert len(results["history"]) < 31
    values = [row["val"]["elbo"] for row in results["history"]]
    assert results["best_epoch"] == values.index(max(values))
    vae, _ = load_model("bernoulli-k3")
    again = evaluate(vae, tiny_mnist.val.x).elbo.double().mean().item()
    assert again == pytest.approx(max(values), abs=1e-4)
    assert results["test"]["elbo"] == pytest.approx(evaluate(vae, tiny_mnist.test.x).elbo.double().mean().item())


def test_results_have_exactly_their_keys_and_can_be_written(tiny_mnist, tmp_path, config):
    results = train(config, tiny_mnist, tmp_path / "runs" / "a")
    assert list(results) == RESULT_KEYS
    assert [row["epoch"] for row in results["history"]] == [0, 1, 2, 3]
    assert set(results["history"][0]) == {"epoch", "seconds", "train", "val"}
    assert set(results["test"]) == {"elbo", "elbo_se", "log_likelihood", "kl"}
    assert results["stopped_by"] == "max_epochs"
    save_results("a", results)


def test_same_seed_same_run_other_seed_other_run(tiny_mnist, tmp_path, config):
    first, second, third = (
        train(settings, tiny_mnist, tmp_path / "runs" / name)
        for name, settings in (("a", config), ("b", config), ("c", replace(config, seed=1)))
    )
    assert metrics(first) == metrics(second) != metrics(third)
    assert all(torch.equal(weights("a")[name], weights("b")[name]) for name in weights("a"))


def test_resumed_run_is_the_uninterrupted_run(tiny_mnist, tmp_path, config, monkeypatch):
    whole = train(replace(config, max_epochs=6), tiny_mnist, tmp_path / "runs" / "whole")
    train(config, tiny_mnist, tmp_path / "runs" / "parts")
    torch.manual_seed(99)  # whatever else happened in between
    parts = train(replace(config, max_epochs=6), tiny_mnist, tmp_path / "runs" / "parts")
    assert metrics(whole) == metrics(parts)
    assert all(torch.equal(weights("whole")[name], weights("parts")[name]) for name in weights("whole"))
    assert train(replace(config, max_epochs=6), tiny_mnist, tmp_path / "runs" / "parts") is None


def test_resuming_with_other_settings_is_refused_and_names_them(tiny_mnist, tmp_path, config):
    train(config, tiny_mnist, tmp_path / "runs" / "a")
    with pytest.raises(UserError, match="learning_rate, seed differ"):
        train(replace(config, seed=2, learning_rate=1e-4), tiny_mnist, tmp_path / "runs" / "a")


def test_interruption_keeps_the_last_complete_epoch(tiny_mnist, tmp_path, config, monkeypatch):
    whole = train(config, tiny_mnist, tmp_path / "runs" / "whole")
    real, calls = training.train_epoch, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(training, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, tiny_mnist, tmp_path / "runs" / "a")
    monkeypatch.setattr(training, "train_epoch", real)
    assert metrics(train(config, tiny_mnist, tmp_path / "runs" / "a")) == metrics(whole)


def test_values_that_run_wild_stop_at_once_and_are_named(tiny_mnist, tmp_path, config, monkeypatch):
    real, calls = training.elbo, []

    def wild(*arguments, **keywords):
        calls.append(1)
        estimate = real(*arguments, **keywords)
        return (
            estimate._replace(kl=estimate.kl * torch.nan, elbo=estimate.elbo * torch.nan)
            if len(calls) == 6
            else estimate
        )

    monkeypatch.setattr(training, "elbo", wild)
    with pytest.raises(UserError, match=r"epoch 1, batch 3: elbo and kl not finite"):
        train(replace(config, batch_size=10), tiny_mnist, tmp_path / "runs" / "a")
    assert (tmp_path / "runs" / "a" / "state.pt").exists()


def test_interruption_after_the_last_epoch_loses_nothing(tiny_mnist, tmp_path, config):
    folder = tmp_path / "runs" / "a"
    whole = train(config, tiny_mnist, folder)
    (folder / "model.pt").unlink()
    again = train(config, tiny_mnist, folder)
    assert metrics(again) == metrics(whole)
    assert again["test"] == whole["test"]


@pytest.mark.parametrize(
    ("call", "says"),
    [(4, "epoch 1, validation ELBO is nan.*has the epochs before"), (1, "epoch 0, training ELBO is nan; nothing")],
)
def test_evaluation_that_runs_wild_is_named(call, says, tiny_mnist, tmp_path, config, monkeypatch):
    real, calls = training.evaluate, []

    def wild(vae, x):
        values = real(vae, x)
        calls.append(1)
        return values._replace(elbo=values.elbo * torch.nan) if len(calls) == call else values

    monkeypatch.setattr(training, "evaluate", wild)
    with pytest.raises(UserError, match=says):
        train(config, tiny_mnist, tmp_path / "runs" / "a")


def test_test_images_are_touched_once_and_only_training_images_are_learned_from(
    tiny_mnist, tmp_path, config, monkeypatch
):
    seen = {"evaluate": [], "train_epoch": []}
    for name in seen:
        real = getattr(training, name)

        def spy(*arguments, real=real, name=name, **keywords):
            seen[name].append(next(a for a in arguments if isinstance(a, torch.Tensor)))
            return real(*arguments, **keywords)

        monkeypatch.setattr(training, name, spy)
    train(config, tiny_mnist, tmp_path / "runs" / "a")
    assert all(x is tiny_mnist.train.x for x in seen["train_epoch"])
    assert [x is tiny_mnist.test.x for x in seen["evaluate"]] == [False] * 8 + [True]


def test_batches_cover_all_images_in_an_order_of_the_epoch(tiny_mnist, config, monkeypatch):
    orders = []
    real = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n: orders.append(real(n)) or orders[-1])
    vae = training.make_vae(config)
    average = training.AveragedModel(vae, multi_avg_fn=training.ramped_average(0.9))
    optimiser = torch.optim.SGD(vae.parameters(), lr=0.0)
    for _ in range(2):
        training.train_epoch(vae, average, optimiser, tiny_mnist.train.x, config)
    assert not torch.equal(*orders)
    assert torch.equal(orders[0].sort().values, torch.arange(50))


def test_average_forgets_the_beginning_and_reaches_its_decay():
    update, average = training.ramped_average(0.9), torch.tensor(100.0)
    for step in range(1, 200):
        update([average], [torch.tensor(1.0)], step)
    assert average.item() == pytest.approx(1.0, abs=1e-3)
    update([average], [torch.tensor(2.0)], 10_000)
    assert average.item() == pytest.approx(1.1, abs=1e-3)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_likelihood_trains(likelihood, tiny_mnist, tmp_path):
    config = Config(likelihood, **SMALL, batch_size=16, max_epochs=4)
    values = [row["val"]["elbo"] for row in train(config, tiny_mnist, tmp_path / "runs" / "a")["history"]]
    assert max(values[1:]) > values[0]


def test_two_processes_cannot_train_one_run():
    with open_run("a"), pytest.raises(UserError, match="another process"), open_run("a"):
        tqdm.write("not reached")
    with open_run("a") as folder:
        assert folder.is_dir()


def test_folder_that_cannot_be_written_is_found_before_training(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write"), open_run("a"):
        pass


def test_full_disk_is_found_before_training(monkeypatch):
    monkeypatch.setattr("common.runs.FREE", 2**62)
    with pytest.raises(UserError, match="MiB left"), open_run("a"):
        pass
