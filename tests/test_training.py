"""Training and its end: synthetic curves, resuming, interruptions, values that are not finite."""

import copy
import math
from dataclasses import replace
from functools import partial

from common import training
from common.config import Config
from common.errors import UserError
from common.mnist import Mnist, Split
from common.runs import fingerprint, load_checkpoint, save_checkpoint
from common.training import EarlyStopping, evaluate, train
from common.vae import elbo
from report.studies.continued import continued, first_plateaus

import pytest
import torch
from conftest import ALL, raising
from torch.nn.functional import pad


def metrics(results):
    return [{part: row[part] for part in ("epoch", "train", "val", "rose")} for row in results["history"]]


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def watch(monkeypatch, name, see):
    """Have see told, after each call of a function of training, which it is, its arguments and its result."""
    real, calls = getattr(training, name), []

    def watched(*arguments, **keywords):
        calls.append(1)
        result = real(*arguments, **keywords)
        return see(len(calls), arguments, result) or result

    monkeypatch.setattr(training, name, watched)


def stopping(values=(), **settings):
    return EarlyStopping(Config("gaussian", **{"patience": 3, "min_gain": 0.01, "drops": 0} | settings), list(values))


def ends_at(values, **settings):
    """The epoch at which the criterion ends a run with these validation ELBOs."""
    criterion = stopping(**settings)
    for epoch, value in enumerate(values):
        criterion.update(value)
        if criterion.stop:
            return epoch
    return None


def test_stopping_on_synthetic_curves():
    assert ends_at([0, 50, 100] + [100] * 9) == 5  # a plateau: epochs 3, 4 and 5 bring nothing
    assert ends_at([0, 50, 100, 100.3, 100.6, 100.9, 101]) == 5  # rising by less than 1 % of 100 in all
    assert ends_at([0, 50, 100, 100, 100, 101.1, 101, 101]) is None  # the last epoch of patience brings enough
    assert ends_at([0, 50, 100, math.nan, math.nan, math.nan]) == 5
    assert ends_at([0, *range(1, 100)], min_gain=0.0) is None
    assert ends_at([-1000, -950, -900] + [-900] * 9) == 5  # only differences count
    rising = [0, 1000, 2000, 2100, 2200, 2300, 2400, 2500]
    rising[4] -= 5000 / 10_000  # one of 10,000 validation images loses thousands of nats in one epoch
    assert ends_at(rising, min_gain=0.002) is None
    assert ends_at([0, 1000, 2000, 1990, 1991, 2010, 2020, 2030], min_gain=0.002) is None  # twenty of them


def test_stopping_after_drops_and_the_best_epoch():
    values = [0, 100, 100, 100, 100, 130, 130.5, 130, 130]
    assert ends_at(values, drops=1) == 8
    criterion = stopping(drops=1, learning_rate=1.0, drop_factor=0.5)
    found = [(criterion.learning_rate, criterion.update(value)) for value in values]
    assert [best for _, best in found] == [True, True, False, False, False, True, True, False, False]
    assert [rate for rate, _ in found] == [1.0] * 5 + [0.5] * 4
    assert criterion.plateaus == 2
    again = stopping(values, drops=1)  # replayed from a history
    assert (again.plateaus, again.waited, again.reference) == (2, 0, criterion.reference)


def test_run_ends_by_patience_with_the_best_average_of_weights(tiny_mnist, tmp_path, config, monkeypatch):
    rates, shares, weights = [], {}, []

    def see(call, arguments, _):
        vae, average, optimiser, _, settings = arguments
        rates.append({group["lr"] for group in optimiser.param_groups})
        shares.setdefault(*rates[-1], set()).add(settings.shifted)
        weights.append(copy.deepcopy((average.module.state_dict(), vae.state_dict())))

    watch(monkeypatch, "train_epoch", see)
    config = replace(config, max_epochs=30, min_gain=0.5, learning_rate=0.016, ema_decay=0.99, components=2)
    results, best = train(replace(config, shifted=0.5), tiny_mnist, tmp_path / "a")
    assert results["stopped_by"] == "patience"
    assert rates == [{row["learning_rate"]} for row in results["history"][1:]]
    assert shares == {0.016: {0.5}, 0.004: {0.0}, 0.001: {0.0}}  # it ends on images as they are
    values = [row["val"]["elbo"] for row in results["history"]]
    assert results["best_epoch"] == values.index(max(values)) < len(values) - 1
    average, raw = weights[results["best_epoch"] - 1]
    assert same(best, average)
    assert not same(best, raw)
    assert not torch.equal(raw["mixture.mu"], weights[0][1]["mixture.mu"])  # p(Z) learns, too
    vae = config.make_vae()
    vae.load_state_dict(best)
    found = {part: evaluate(vae, getattr(tiny_mnist, part).x).elbo.double() for part in ("train", "val", "test")}
    for part, row in {**results["history"][results["best_epoch"]], "test": results["test"]}.items():
        if part in found:
            assert row["elbo"] == pytest.approx(found[part].mean().item(), abs=1e-4)
    assert results["test"]["elbo_se"] == pytest.approx(found["test"].std().item() / 50**0.5)


def test_a_step_is_adamw_with_decay_its_own_memories_and_gradients_of_the_length_that_is_set(tiny_mnist, config):
    constants = {"max_grad_norm": 1e-5, "beta_1": 0.8, "beta_2": 0.5, "amsgrad": 1, "weight_decay": 0.5}
    config, x = replace(config, **constants, components=2, batch_size=50, epoch_images=100), tiny_mnist.train.x
    learner = training.make_learner(config)
    twin = copy.deepcopy(learner[0])
    groups = [{"params": [*twin.encoder.parameters(), *twin.decoder.parameters()]}]
    groups += [{"params": twin.mixture.parameters(), "weight_decay": 0.0}]  # p(Z) does not decay
    adamw = torch.optim.AdamW(groups, config.learning_rate, (0.8, 0.5), weight_decay=0.5, amsgrad=True)
    torch.manual_seed(1)
    training.train_epoch(*learner, x, config)
    torch.manual_seed(1)
    for batch in [torch.randperm(50) for _ in range(2)]:
        loss = -elbo(twin, x[batch], twin.q_z(x[batch])).elbo.mean()
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        length = torch.stack([part.square().sum() for part in gradients]).sum().sqrt()
        for parameter, gradient in zip(twin.parameters(), gradients, strict=True):
            parameter.grad = gradient * config.max_grad_norm / length
        adamw.step()
    for mine, same in zip(learner[0].parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, same, atol=1e-6, rtol=1e-4)


def test_shifted_images_are_images_shifted_by_up_to_a_pixel_on_black(tiny_mnist, config, monkeypatch):
    x, batches = tiny_mnist.train.x, []
    watch(monkeypatch, "elbo", lambda _, given, __: batches.append(given[1]))
    training.train_epoch(*training.make_learner(config), x, replace(config, shifted=0.99, epoch_images=400))
    steps, framed = (-1, 0, 1), pad(x, (1, 1, 1, 1))
    wanted = [framed.roll((down, across), (2, 3))[..., 1:-1, 1:-1] for down in steps for across in steps]
    found = (torch.cat(batches)[:, None, None] == torch.stack(wanted)[None]).flatten(3).all(3)  # (400, 9, 50)
    assert found.any(2).any(1).all()
    assert found.any(2).any(0).all()
    many = x[:1].expand(9000, -1, -1, -1)
    assert (training.shifted(many, 0.5) != many).flatten(1).any(1).double().mean() == pytest.approx(4 / 9, abs=0.02)


def test_the_rise_of_each_validation_image_is_kept(tiny_mnist, tmp_path, config):
    results, _ = train(config, tiny_mnist, tmp_path / "a")
    elbos = torch.load(tmp_path / "a" / "state.pt", weights_only=True)["val_elbos"]
    assert [values.shape for values in elbos] == [(50,)] * 4
    for before, after, row in zip(elbos, elbos[1:], results["history"][1:], strict=False):
        gain = after - before
        assert row["rose"]["mean"] == pytest.approx(gain.mean().item(), abs=1e-3)
        assert row["rose"]["median"] == pytest.approx(gain.median().item(), abs=1e-3)
        assert row["rose"]["share"] == pytest.approx((gain > 0).float().mean().item())


def test_resumed_run_is_the_uninterrupted_run_and_another_seed_is_another(tiny_mnist, tmp_path, config, monkeypatch):
    six = replace(config, max_epochs=6)
    whole, a = train(six, tiny_mnist, tmp_path / "whole")
    train(config, tiny_mnist, tmp_path / "parts")  # three epochs; then Ctrl-C in the fifth
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        watch(patch, "train_epoch", lambda call, *_: call == 2 and raising(KeyboardInterrupt)())
        train(six, tiny_mnist, tmp_path / "parts")
    torch.manual_seed(99)  # whatever else happened in between
    for _ in range(2):  # the second time there is nothing left to do, and the results are made again
        parts, b = train(six, tiny_mnist, tmp_path / "parts")
        assert metrics(whole) == metrics(parts)
        assert whole["test"] == parts["test"]
        assert same(a, b)
    assert metrics(train(replace(six, seed=1), tiny_mnist, tmp_path / "other")[0]) != metrics(whole)
    with pytest.raises(UserError, match="learning_rate, seed differ"):
        train(replace(config, seed=2, learning_rate=1e-4), tiny_mnist, tmp_path / "parts")


@pytest.mark.parametrize(
    ("name", "call", "says"),
    [
        ("elbo", 6, "epoch 1, batch 3: elbo and kl not finite.*are in .*a. Try a smaller"),
        ("evaluate", 4, "epoch 1, the ELBO after it is not finite"),
        ("evaluate", 1, "epoch 0, the ELBO after it is not finite"),
    ],
)
def test_values_that_run_wild_stop_at_once_and_are_named(name, call, says, tiny_mnist, tmp_path, config, monkeypatch):
    def see(now, _, values):
        return values._replace(kl=values.kl * torch.nan, elbo=values.elbo * torch.nan) if now == call else values

    watch(monkeypatch, name, see)
    with pytest.raises(UserError, match=says):
        train(replace(config, batch_size=10), tiny_mnist, tmp_path / "a")
    assert (tmp_path / "a" / "state.pt").exists() == (call > 1)


def test_only_training_images_are_learned_from_and_test_images_touched_once(tiny_mnist, tmp_path, config, monkeypatch):
    seen = {"evaluate": [], "train_epoch": []}
    for name, images in seen.items():
        watch(monkeypatch, name, lambda _, given, __, images=images: images.append(given[1 if len(given) < 4 else 3]))
    train(config, tiny_mnist, tmp_path / "a")
    assert all(x is tiny_mnist.train.x for x in seen["train_epoch"])
    assert [x is tiny_mnist.test.x for x in seen["evaluate"]] == [False] * 8 + [True]


def test_batches_cover_all_images_in_an_order_of_the_epoch(tiny_mnist, config, monkeypatch):
    orders = []
    real = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n: orders.append(real(n)) or orders[-1])
    learner = training.make_learner(config)
    for _ in range(2):
        training.train_epoch(*learner, tiny_mnist.train.x, config)
    assert not torch.equal(*orders)
    assert torch.equal(orders[0].sort().values, torch.arange(50))
    orders.clear()
    training.train_epoch(*learner, tiny_mnist.train.x, replace(config, epoch_images=160))
    assert len(orders) == 3  # an epoch of a small data set is several passes


def test_average_forgets_the_beginning_and_reaches_its_decay():
    update, average = partial(training.ramped_average, 0.9), torch.tensor(100.0)
    for step in range(1, 200):
        update([average], [torch.tensor(1.0)], step)
    assert average.item() == pytest.approx(1.0, abs=1e-3)
    update([average], [torch.tensor(2.0)], 10_000)
    assert average.item() == pytest.approx(1.1, abs=1e-3)


@pytest.mark.parametrize("likelihood", ALL)
def test_fault_48_eight_images_can_be_learned_by_heart(likelihood, tiny_mnist, tmp_path):
    eight = Mnist("mnist5k", *(Split(part.x[:8], part.y[:8]) for part in tiny_mnist[1:]))
    config = Config(likelihood, latent_dim=4, width=16, hidden=64, batch_size=8, epoch_images=1200, max_epochs=1)
    before, after = (row["train"]["elbo"] for row in train(config, eight, tmp_path / "a")[0]["history"])
    assert after > before + 50


def test_a_continuation_begins_with_the_best_weights_and_belongs_to_them(config, tiny_mnist, source):
    results, weights = train(config, tiny_mnist, source.home.runs / config.run)
    save_checkpoint(source.home.runs / config.run / "model.pt", {"config": config.to_dict(), "weights": weights})
    source.weights[config.run] = mark = fingerprint(weights)
    source.save(config.run, results)
    torch.manual_seed(5)
    ((_, vae),) = source.models([replace(config, seed=9), config], "cpu")  # of both this one has been trained
    drawn = torch.rand(3)
    torch.manual_seed(0)  # what is drawn for a model depends on no other
    assert torch.equal(drawn, torch.rand(3))
    with pytest.raises(UserError, match=r"no model is trained yet; train one with: python task_1/train\.py$"):
        next(source.models([Config("gaussian")], "cpu"))
    found = continued(replace(config, max_epochs=4), config.run, vae, tiny_mnist, source, "cpu")
    state = load_checkpoint(source.home.runs / "continued" / f"{config.run}-{mark}" / "state.pt", {"history"})
    values = [row["val"]["elbo"] for row in state["history"]]
    assert (found["epochs"], len(values)) == (3, 5)
    best = results["history"][results["best_epoch"]]
    assert values[1] == pytest.approx(best["val"]["elbo"], abs=1e-3)
    assert found["gain"]["mean"] == pytest.approx(max(values[1:]) - values[1], abs=1e-3)
    assert state["history"][2]["learning_rate"] == config.learning_rate


def test_first_plateaus_are_found_by_each_rule_while_the_learning_rate_is_the_first(config):
    def ended(values, shares, falls):
        rates = [config.learning_rate] * falls + [config.learning_rate / 4] * (len(values) - falls)
        rows = zip(values, shares, rates, strict=True)
        rows = [{"val": {"elbo": v}, "rose": {"share": share}, "learning_rate": rate} for v, share, rate in rows]
        return {"history": rows, "stopped_by": "max_epochs"}

    values, shares = [0, 100, 200, 300, 300.1, 300.2, 300.2, 400, 500], [1, 1, 1, 1, 1, 1, 0.1, 0, 0]
    found = first_plateaus(ended(values, shares, falls=7), config)
    assert found == {"rise": 6, "images": None, "bits": 6}  # in three epochs to epoch 6: 0.7 of images; 0.0004 bits
    found = first_plateaus(ended(values, [1] * 4 + [0.5] * 5, falls=9), config)
    assert found == {"rise": None, "images": 6, "bits": 6}
