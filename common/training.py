"""Training: maximise the ELBO of the training images until that of the validation images stops rising."""

import copy
import math
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.config import TASK_1, TASK_3, Config
from common.errors import CheckpointError, UserError, say
from common.evaluation import mean_and_se
from common.mnist import Mnist
from common.runs import Source, fingerprint, load_checkpoint, open_run, save_checkpoint
from common.vae import ELBO, VAE, Score, elbo, start_from_marginals

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

STATE = {"config", "vae", "average", "optimiser", "history", "val_elbos", "best"}
EVALUATION_SEED = 1  # the same noise at every evaluation, so that epochs differ by the weights alone


class EarlyStopping:
    """Task 1c: find the plateaus of the validation ELBO; training ends at the last of them.

    A plateau is patience epochs in a row that raise the ELBO too little: by less than min_gain times all that it has
    risen since the first value. (An ELBO of densities shifts by a constant when pixels are measured in other units, so
    a percentage of the ELBO would mean nothing; one of its rise does.) At each of the first drops plateaus the learning
    rate falls and training goes on; at the next one it stops.
    """

    def __init__(self, config: Config, values: list[float]):
        """values: the validation ELBO of epochs 0, 1, ... so far, from which all the rest follows."""
        self.config, self.values = config, []
        self.reference = self.waited = self.plateaus = 0
        for value in values:
            self.update(value)

    def update(self, value: float) -> bool:
        """Take the next epoch's validation ELBO; True if it is the best so far."""
        first, best = self.values[0] if self.values else value, max(self.values, default=-math.inf)
        if not self.values or value > self.reference + self.config.min_gain * (self.reference - first):
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited == self.config.patience:
            self.plateaus, self.waited = self.plateaus + 1, 0
        self.values.append(value)
        return value > best

    @property
    def learning_rate(self) -> float:
        return self.config.learning_rate * self.config.drop_factor**self.plateaus

    @property
    def shifted(self) -> float:
        """The share of images that are shifted; after the first fall of the learning rate they are used as they are."""
        return self.config.shifted if self.plateaus == 0 else 0.0

    @property
    def stop(self) -> bool:
        return self.plateaus > self.config.drops


@torch.no_grad()
def evaluate(vae: VAE, x: Tensor, batch_size: int = 250, score: Score | None = None) -> ELBO:
    """The ELBO of each image of x (N, 1, 28, 28), each (N,), with one z ~ q(Z|x) per image; score: see elbo.

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
        parts.append(elbo(vae, x_part, q_z, z=q_z.mean + q_z.stddev * noise_part, score=score))
    vae.train(was_training)
    return ELBO(*(torch.cat(part) for part in zip(*parts, strict=True)))


def means(values: ELBO) -> dict[str, float]:
    return {name: value.double().mean().item() for name, value in values._asdict().items()}


def train_epoch(vae: VAE, average: AveragedModel, optimiser: torch.optim.Optimizer, x: Tensor, config: Config) -> None:
    """One pass over x in random order, or as many as config.epoch_images takes.

    Of the images a share, config.shifted, is shifted. Raises FloatingPointError naming batch and term if something is
    not finite.
    """
    vae.train()
    passes = max(1, config.epoch_images // len(x))
    batches = [batch for _ in range(passes) for batch in torch.randperm(len(x)).split(config.batch_size)]
    for number, batch in enumerate(batches):
        x_batch = shifted(x[batch], config.shifted) if config.shifted else x[batch]
        estimate = ELBO(*(term.mean() for term in elbo(vae, x_batch, vae.q_z(x_batch))))
        optimiser.zero_grad()
        (-estimate.elbo).backward()
        norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), config.max_grad_norm)
        if not norm.isfinite():
            bad = [name for name, term in estimate._asdict().items() if not term.isfinite()] or ["gradient"]
            raise FloatingPointError(f"batch {number}: {' and '.join(bad)} not finite")
        optimiser.step()
        average.update_parameters(vae)


def shifted(x: Tensor, share: float) -> Tensor:
    """About this share of the images of x (B, 1, 28, 28), each shifted by -1, 0 or 1 pixel down and across."""
    windows = pad(x, (1, 1, 1, 1)).unfold(2, 28, 1).unfold(3, 28, 1)  # (B, 1, 3, 3, 28, 28), a view
    down, across = torch.where(torch.rand(len(x)) < share, torch.randint(3, (2, len(x))), 1)
    return windows[torch.arange(len(x)), :, down, across]


def ramped_average(decay: float, averages: list[Tensor], values: list[Tensor], steps: Tensor | int) -> None:
    """An exponential moving average that forgets the first steps, which a constant decay would carry along."""
    get_ema_multi_avg_fn(min(decay, (1 + int(steps)) / (20 + int(steps))))(averages, values, steps)


def make_learner(config: Config, device: str = "cpu") -> tuple[VAE, AveragedModel, torch.optim.AdamW]:
    """A new model, the average of its weights, which is what is evaluated and kept, and its optimiser."""
    torch.manual_seed(config.seed)
    vae = config.make_vae().to(device)
    average = AveragedModel(vae, multi_avg_fn=partial(ramped_average, config.ema_decay))
    groups = [{"params": [p for name, p in vae.named_parameters() if not name.startswith("mixture")]}]
    if vae.mixture:  # decay would widen p(Z) and draw it to 0
        groups.append({"params": list(vae.mixture.parameters()), "weight_decay": 0.0})
    own = {"betas": (config.beta_1, config.beta_2), "amsgrad": config.amsgrad == 1, "weight_decay": config.weight_decay}
    optimiser = torch.optim.AdamW(groups, config.learning_rate, fused=True, **own)
    return vae, average, optimiser


def train(config: Config, mnist: Mnist, folder: Path, device: str = "cpu") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train until the stopping criterion ends it, from the folder's last complete epoch if there is one.

    mnist is on the device. Returns the results as they stand in report/results, and the best weights. The test images
    are touched once, after training. Raises UserError if the folder holds a run with other settings, or if a value is
    not finite.
    """
    vae, average, optimiser = make_learner(config, device)
    parts = {"vae": vae, "average": average, "optimiser": optimiser}
    history, val_elbos, best, made = resume(folder / "state.pt", config, parts)
    stopping = EarlyStopping(config, [row["val"]["elbo"] for row in history])

    while not stopping.stop and len(history) <= config.max_epochs:
        epoch, learning_rate, started = len(history), stopping.learning_rate, time.perf_counter()
        try:
            if epoch == 0:
                start_from_marginals(vae, mnist.train.x)
                average.module.load_state_dict(vae.state_dict())
            else:
                torch.manual_seed(1_000_003 * config.seed + epoch)  # a resumed run is the same run
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate
                now = replace(config, shifted=stopping.shifted)
                train_epoch(vae, average, optimiser, mnist.train.x, now)
            on_train, on_val = (evaluate(average.module, part.x) for part in (mnist.train, mnist.val))  # no gradients
            row = {"epoch": epoch, "learning_rate": learning_rate, "train": means(on_train), "val": means(on_val)}
            if not math.isfinite(row["train"]["elbo"] + row["val"]["elbo"]):
                raise FloatingPointError("the ELBO after it is not finite")
        except FloatingPointError as error:
            where = f"{config.run}: epoch {epoch}, {error}{f'; the epochs before it are in {folder}' if epoch else ''}"
            raise UserError(f"{where}. Try a smaller --learning-rate or --max-grad-norm") from error
        row |= {"seconds": time.perf_counter() - started, "rose": rise(val_elbos, on_val.elbo)}
        history.append(row)
        val_elbos.append(on_val.elbo.cpu())
        if stopping.update(row["val"]["elbo"]):
            best = copy.deepcopy(average.module.state_dict())
        state = {name: part.state_dict() for name, part in parts.items()}
        made = made_with(device)
        state |= {"history": history, "val_elbos": val_elbos, "best": best, "made_with": made}
        save_checkpoint(folder / "state.pt", {"config": config.to_dict(), **state})
        say(progress(row, stopping))

    average.module.load_state_dict(best)
    on_test = evaluate(average.module, mnist.test.x)
    return summary(config, mnist, history, stopping, on_test) | (made or made_with(device)), best


def train_run(config: Config, mnist: Mnist, source: Source, device: str) -> None:
    """Train a run, or go on with it, until its end; save weights and results, and say what happened."""
    run, folder, source = config.run, source.home.runs / config.run, Source(mnist.name, config.command, source.data_dir)
    with open_run(folder):
        results, weights = train(config, mnist, folder, device)
        save_checkpoint(folder / "model.pt", {"config": config.to_dict(), "weights": weights})
        source.weights[run] = fingerprint(weights)
        source.save(run, results)
    epochs, best, test = len(results["history"]) - 1, results["best_epoch"], results["test"]
    reason = f"--max-epochs is {config.max_epochs}{' and it had more already' if epochs > config.max_epochs else ''}"
    if results["stopped_by"] == "patience":
        reason = f"its validation ELBO reached plateau {config.drops + 1}"
    say(f"{run} ended after {epochs} epochs, because {reason}; best epoch: {best}, its weights: {folder / 'model.pt'}")
    say(f"test ELBO {test['elbo']:.2f} ± {test['elbo_se']:.2f} nats per image, KL {test['kl']:.2f}. Its figures:")
    scripts = ["task_2/figures"]
    if config.likelihood == TASK_1.likelihood:
        scripts = ["task_1/curves", "task_1/reconstruct", "task_1/sample"]
    elif config.latent_dim == TASK_3.latent_dim:
        scripts = ["task_1/curves", "task_3/latent_2d"]
    for script in scripts:
        say(f"    python {script}.py --run {run}{source.option}")


def resume(path: Path, config: Config, parts: dict[str, Any]) -> tuple[list, list, dict, dict | None]:
    """Bring model, average and optimiser to the last complete epoch; its history, ELBOs, best weights and made_with.

    Raises UserError if the file holds a training with other settings, CheckpointError if it is damaged.
    """
    if not path.exists():
        return [], [], {}, None
    state = load_checkpoint(path, STATE)
    if different := config.differences(state["config"]):
        remedy = "use the settings that it was started with, or delete the folder to start again"
        raise UserError(f"{path.parent} holds a run with other settings: {', '.join(different)} differ; {remedy}")
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: does not fit this code ({error}); delete it and train again") from error
    return state["history"], state["val_elbos"], state["best"], state.get("made_with")


def made_with(device: str) -> dict[str, Any]:
    packages = ("torch", "torchvision", "numpy", "matplotlib")
    versions = {package: version(package) for package in packages}
    return {"versions": versions, "threads": torch.get_num_threads(), "device": device}


def rise(val_elbos: list[Tensor], now: Tensor) -> dict[str, float] | None:
    """How the ELBO of the validation images rose since the epoch before: mean, median, and the share that rose."""
    if not val_elbos:
        return None
    gain = now.cpu().double() - val_elbos[-1]
    return {"mean": gain.mean().item(), "median": gain.median().item(), "share": (gain > 0).double().mean().item()}


def progress(row: dict[str, Any], stopping: EarlyStopping) -> str:
    """What a user sees of an epoch: both ELBOs, the KL term, the learning rate, and how far the end is."""
    config = stopping.config
    return (
        f"epoch {row['epoch']:3}: ELBO {row['train']['elbo']:.2f} training, {row['val']['elbo']:.2f} validation, "
        f"KL {row['val']['kl']:.2f}, learning rate {row['learning_rate']:.2g}; {stopping.waited} of {config.patience} "
        f"epochs without enough gain, plateau {stopping.plateaus} of {config.drops + 1}; {row['seconds']:.0f} s"
    )


def summary(
    config: Config, mnist: Mnist, history: list[dict[str, Any]], stopping: EarlyStopping, on_test: ELBO
) -> dict[str, Any]:
    """An ended training as it stands in report/results/<run>.json; on_test: each test image's ELBO, best weights."""
    return {
        "run": config.run,
        "dataset": mnist.name,
        "likelihood": config.likelihood,
        "latent_dim": config.latent_dim,
        "parameters": sum(parameter.numel() for parameter in config.make_vae().parameters()),
        "settings": config.to_dict(),
        "images": {part: len(getattr(mnist, part).x) for part in ("train", "val", "test")},
        "history": history,
        "best_epoch": max(history, key=lambda row: row["val"]["elbo"])["epoch"],
        "stopped_by": "patience" if stopping.stop else "max_epochs",
        "test": {"elbo_se": mean_and_se(on_test.elbo)["se"], **means(on_test)},
        "seconds": sum(row["seconds"] for row in history),
    }
