"""Training: maximise the ELBO of the training images until that of the validation images stops rising."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy
import torch
import torchvision
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from common.config import Config
from common.errors import CheckpointError, UserError
from common.likelihoods import LIKELIHOODS
from common.mnist import Mnist
from common.runs import load_checkpoint, make_vae, save_checkpoint
from common.vae import ELBO, VAE, elbo, start_from_marginals

STATE = {"config", "dataset", "vae", "average", "optimiser", "stopping", "history", "best"}
EVALUATION_SEED = 1  # the same noise at every evaluation, so that epochs differ by the weights alone


class EarlyStopping:
    """Task 1c: find the plateaus of the validation ELBO; training ends at the last of them.

    A plateau is patience epochs that raise the ELBO too little: by less than min_gain times all that it has risen since
    the first value. (An ELBO of densities shifts by a constant when pixels are measured in other units, so a percentage
    of the ELBO would mean nothing; one of its rise does.) At each of the first drops plateaus the learning rate falls
    and training goes on; at the next one it stops.
    """

    def __init__(self, patience: int, min_gain: float, drops: int):
        self.patience, self.min_gain, self.drops = patience, min_gain, drops
        self.first = self.reference = self.best = None
        self.waited = self.plateaus = 0

    def update(self, value: float) -> bool:
        """Take the next epoch's validation ELBO; True if it is the best so far."""
        if self.first is None:
            self.first = self.reference = self.best = value
            return True
        if value > self.reference + self.min_gain * (self.reference - self.first):
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited == self.patience:
            self.plateaus, self.waited = self.plateaus + 1, 0
        is_best = value > self.best
        self.best = max(self.best, value)
        return is_best

    @property
    def stop(self) -> bool:
        return self.plateaus > self.drops


def learning_rate_drops(results: dict[str, Any]) -> list[int]:
    """The epochs of a finished run (a content of report/results/<run>.json) after which the learning rate fell."""
    config = Config(**results["settings"])
    stopping, ends = stopping_criterion(config), []
    for row in results["history"]:
        before = stopping.plateaus
        stopping.update(row["val"]["elbo"])
        ends += [row["epoch"]] * (stopping.plateaus - before)
    return ends[: config.drops]


def stopping_criterion(config: Config) -> EarlyStopping:
    return EarlyStopping(config.patience, config.min_gain * LIKELIHOODS[config.likelihood].creep, config.drops)


@torch.no_grad()
def evaluate(vae: VAE, x: Tensor, batch_size: int = 500) -> ELBO:
    """The ELBO of each image of x (N, 1, 28, 28), each (N,), with one z ~ q(Z|x) per image.

    Each image has its own fixed noise, so its value depends neither on the batch size nor on earlier calls. The model,
    its gradients and the random generators are left as they were.
    """
    was_training = vae.training
    vae.eval()
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    noise = torch.randn(len(x), vae.latent_dim, generator=generator).to(x.device)
    parts = []
    for x_part, noise_part in zip(x.split(batch_size), noise.split(batch_size), strict=True):
        q_z = vae.q_z(x_part)
        parts.append(elbo(vae, x_part, q_z, z=q_z.mean + q_z.stddev * noise_part))
    vae.train(was_training)
    return ELBO(*(torch.cat(part) for part in zip(*parts, strict=True)))


def means(values: ELBO) -> dict[str, float]:
    return {name: value.double().mean().item() for name, value in values._asdict().items()}


def train_epoch(vae: VAE, average: AveragedModel, optimiser: torch.optim.Optimizer, x: Tensor, config: Config) -> None:
    """One pass over x in random order. Raises FloatingPointError naming batch and term if something is not finite."""
    vae.train()
    for number, batch in enumerate(torch.randperm(len(x)).split(config.batch_size)):
        x_batch = x[batch]
        estimate = ELBO(*(term.mean() for term in elbo(vae, x_batch, vae.q_z(x_batch))))
        optimiser.zero_grad()
        (-estimate.elbo).backward()
        norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), config.max_grad_norm)
        if not norm.isfinite():
            bad = [name for name, term in estimate._asdict().items() if not term.isfinite()] or ["gradient"]
            raise FloatingPointError(f"batch {number}: {' and '.join(bad)} not finite")
        optimiser.step()
        average.update_parameters(vae)


def ramped_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    """An exponential moving average that forgets the first steps, which a constant decay would carry along."""

    def update(averages: list[Tensor], values: list[Tensor], steps: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(steps)) / (20 + int(steps)))
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value, weight)

    return update


def make_learner(config: Config, device: str = "cpu") -> tuple[VAE, AveragedModel, torch.optim.AdamW]:
    """A new model, the average of its weights, which is what is evaluated and kept, and its optimiser."""
    vae = make_vae(config).to(device)
    average = AveragedModel(vae, multi_avg_fn=ramped_average(config.ema_decay))
    betas = 0.9, config.beta_2
    optimiser = torch.optim.AdamW(
        vae.parameters(), config.learning_rate, betas, weight_decay=config.weight_decay, fused=True
    )
    return vae, average, optimiser


class Training:
    """A training between two epochs; state.pt has all of it, to go on from."""

    def __init__(self, config: Config, mnist: Mnist, device: str):
        self.config, self.dataset = config, mnist.name
        self.x_train, self.x_val = mnist.train.x.to(device), mnist.val.x.to(device)
        torch.manual_seed(config.seed)
        self.vae, self.average, self.optimiser = make_learner(config, device)
        self.stopping = stopping_criterion(config)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}

    @property
    def ended(self) -> bool:
        return self.stopping.stop or len(self.history) > self.config.max_epochs

    def epoch(self) -> None:
        """Learn (at epoch 0: start from the marginals), evaluate, and keep the weights if they are the best so far.

        Raises FloatingPointError if a value runs wild; then this epoch is no part of the history.
        """
        started = time.perf_counter()
        if self.history:
            self.optimiser.param_groups[0]["lr"] = (
                self.config.learning_rate * self.config.drop_factor**self.stopping.plateaus
            )
            torch.manual_seed(1_000_003 * self.config.seed + len(self.history))  # a resumed run is the same run
            train_epoch(self.vae, self.average, self.optimiser, self.x_train, self.config)
        else:
            start_from_marginals(self.vae, self.x_train)
            self.average.module.load_state_dict(self.vae.state_dict())
        vae = self.average.module
        measured = {"train": means(evaluate(vae, self.x_train)), "val": means(evaluate(vae, self.x_val))}
        for part, name in (("train", "training"), ("val", "validation")):
            if not math.isfinite(measured[part]["elbo"]):
                raise FloatingPointError(f"{name} ELBO is {measured[part]['elbo']}")
        self.history.append({"epoch": len(self.history), "seconds": time.perf_counter() - started, **measured})
        if self.stopping.update(measured["val"]["elbo"]):
            self.best = {name: value.clone() for name, value in vae.state_dict().items()}

    def save(self, path: Path) -> None:
        state = {"vae": self.vae, "average": self.average, "optimiser": self.optimiser}
        state = {name: part.state_dict() for name, part in state.items()}
        state |= {"stopping": vars(self.stopping), "history": self.history, "best": self.best}
        save_checkpoint(path, {"config": self.config.to_dict(), "dataset": self.dataset, **state})

    def load(self, path: Path) -> None:
        """Raises UserError if the file holds a training with other settings, CheckpointError if it is damaged."""
        state = load_checkpoint(path, STATE)
        try:
            different = self.config.differences(Config(**state["config"]))
        except TypeError as error:
            raise CheckpointError(f"{path}: has other settings than this code ({error}); delete it") from error
        if different:
            raise UserError(
                f"{path.parent} holds a run with other settings: {', '.join(different)} differ; "
                "use the settings that it was started with, or delete the folder to start again"
            )
        for name in ("vae", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        vars(self.stopping).update(state["stopping"])
        self.history, self.best = state["history"], state["best"]


def fit(
    config: Config, mnist: Mnist, folder: Path, device: str = "cpu"
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Train to the end, going on from the folder's last complete epoch if there is one.

    Returns the results as they stand in report/results, and the best weights; or None if the run has a model.pt and
    nothing is left to do. The test images are touched once, after training. Raises UserError if the folder holds a run
    with other settings or values run wild.
    """
    run, state = config.run_name(mnist.name), folder / "state.pt"
    training = Training(config, mnist, device)
    if state.exists():
        training.load(state)
    if training.ended and (folder / "model.pt").exists():
        return None
    with tqdm(initial=max(0, len(training.history) - 1), total=config.max_epochs, desc=run, unit="epoch") as bar:
        while not training.ended:
            try:
                training.epoch()
            except FloatingPointError as error:
                kept = f"{folder} has the epochs before" if training.history else "nothing was trained"
                raise UserError(f"{run}: epoch {len(training.history)}, {error}; {kept}") from error
            training.save(state)
            bar.update(len(training.history) > 1)
            last = training.history[-1]
            bar.set_postfix({part: f"{last[part]['elbo']:.2f}" for part in ("train", "val")})
    training.average.module.load_state_dict(training.best)
    return summary(training, evaluate(training.average.module, mnist.test.x.to(device))), training.best


def summary(training: Training, test: ELBO) -> dict[str, Any]:
    """An ended training as it stands in report/results/<run>.json; test: the best weights' ELBO of each test image."""
    config, history = training.config, training.history
    standard_error = test.elbo.double().std().item() / len(test.elbo) ** 0.5
    return {
        "run": config.run_name(training.dataset),
        "dataset": training.dataset,
        "likelihood": config.likelihood,
        "latent_dim": config.latent_dim,
        "parameters": sum(parameter.numel() for parameter in training.vae.parameters()),
        "settings": config.to_dict(),
        "history": history,
        "best_epoch": max(history, key=lambda row: row["val"]["elbo"])["epoch"],
        "stopped_by": "patience" if training.stopping.stop else "max_epochs",
        "test": {"elbo": means(test)["elbo"], "elbo_se": standard_error, **means(test)},
        "seconds": sum(row["seconds"] for row in history),
        "versions": {module.__name__: module.__version__ for module in (torch, torchvision, numpy, matplotlib)},
        "threads": torch.get_num_threads(),
    }
