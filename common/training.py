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
from common.errors import UserError
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
    noise = torch.randn(len(x), len(vae.zeros), generator=generator).to(x.device)
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


def make_optimiser(vae: VAE, config: Config) -> torch.optim.AdamW:
    betas = 0.9, config.beta_2
    return torch.optim.AdamW(
        vae.parameters(), config.learning_rate, betas, weight_decay=config.weight_decay, fused=True
    )


def fit(
    config: Config, mnist: Mnist, folder: Path, device: str = "cpu"
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Train to the end, going on from the folder's last complete epoch if there is one.

    Returns the results as they stand in report/results, and the best weights; or None if the run has a model.pt and
    nothing is left to do. The test images are touched once, after training. Raises UserError if the folder holds a run
    with other settings or values run wild.
    """
    run = config.run_name(mnist.name)
    torch.manual_seed(config.seed)
    x_train, x_val = mnist.train.x.to(device), mnist.val.x.to(device)
    vae = make_vae(config).to(device)
    average = AveragedModel(vae, multi_avg_fn=ramped_average(config.ema_decay))
    optimiser = make_optimiser(vae, config)
    stopping = stopping_criterion(config)
    history, best = [], None

    def end_epoch(started: float) -> None:
        nonlocal best
        measured = {"train": means(evaluate(average.module, x_train)), "val": means(evaluate(average.module, x_val))}
        if not math.isfinite(measured["val"]["elbo"]):
            raise FloatingPointError(f"validation ELBO is {measured['val']['elbo']}")
        history.append({"epoch": len(history), "seconds": time.perf_counter() - started, **measured})
        if stopping.update(measured["val"]["elbo"]):
            best = {name: value.clone() for name, value in average.module.state_dict().items()}
        state = {"vae": vae, "average": average, "optimiser": optimiser}
        state = {name: part.state_dict() for name, part in state.items()}
        state |= {"stopping": vars(stopping), "history": history, "best": best}
        save_checkpoint(folder / "state.pt", {"config": config.to_dict(), "dataset": mnist.name, **state})

    started = time.perf_counter()
    if (folder / "state.pt").exists():
        state = load_checkpoint(folder / "state.pt", STATE)
        if different := config.differences(Config(**state["config"])):
            raise UserError(
                f"{folder} holds a run with other settings: {', '.join(different)} differ; "
                "use the settings that it was started with, or delete the folder to start again"
            )
        for name, part in (("vae", vae), ("average", average), ("optimiser", optimiser)):
            part.load_state_dict(state[name])
        vars(stopping).update(state["stopping"])
        history, best = state["history"], state["best"]
    else:
        start_from_marginals(vae, x_train)
        average.module.load_state_dict(vae.state_dict())
        end_epoch(started)

    def ended() -> bool:
        return stopping.stop or len(history) > config.max_epochs

    if (folder / "model.pt").exists() and ended():
        return None
    with tqdm(initial=len(history) - 1, total=config.max_epochs, desc=run, unit="epoch") as bar:
        while not ended():
            show(bar, history)
            started = time.perf_counter()
            optimiser.param_groups[0]["lr"] = config.learning_rate * config.drop_factor**stopping.plateaus
            torch.manual_seed(1_000_003 * config.seed + len(history))  # the epoch's own: a resumed run is the same run
            try:
                train_epoch(vae, average, optimiser, x_train, config)
                end_epoch(started)
            except FloatingPointError as error:
                raise UserError(f"{run}: epoch {len(history)}, {error}; {folder} has the last finite epoch") from error
            bar.update()
        show(bar, history)

    average.module.load_state_dict(best)
    test = evaluate(average.module, mnist.test.x.to(device))
    standard_error = test.elbo.double().std().item() / len(test.elbo) ** 0.5
    results = {
        "run": run,
        "dataset": mnist.name,
        "likelihood": config.likelihood,
        "latent_dim": config.latent_dim,
        "parameters": sum(parameter.numel() for parameter in vae.parameters()),
        "settings": config.to_dict(),
        "history": history,
        "best_epoch": max(history, key=lambda row: row["val"]["elbo"])["epoch"],
        "stopped_by": "patience" if stopping.stop else "max_epochs",
        "test": {"elbo": means(test)["elbo"], "elbo_se": standard_error, **means(test)},
        "seconds": sum(row["seconds"] for row in history),
        "versions": {module.__name__: module.__version__ for module in (torch, torchvision, numpy, matplotlib)},
        "threads": torch.get_num_threads(),
    }
    return results, best


def show(bar: tqdm, history: list[dict[str, Any]]) -> None:
    bar.set_postfix({part: f"{history[-1][part]['elbo']:.2f}" for part in ("train", "val")})
