"""How fast is training on the CPU, beside the textbook way? Both in this one run.

The textbook way: a DataLoader over torchvision's MNIST with ToTensor, convolutions of 32, 64 and 128 channels and their
transposes, Adam at 1e-3, batches of 128. Its published run is extrapolated from the epochs measured here; two of ours,
as in Task 2d and with settings for speed, are trained until they reach its objective on the validation images. Writes
report/results/benchmark.json, with the seconds of an epoch of every model.
"""

import math
import sys
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.config import CHOICES, TASK_1, Config
from common.errors import UsageError
from common.mnist import Mnist, Split
from common.training import evaluate, make_learner, means, train_epoch
from common.vae import start_from_marginals

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

BATCH = 128
FAST = Config("bernoulli", components=200, batch_size=192, learning_rate=4e-3, ema_decay=0.997)  # by validation images
TRAINED = [Config("bernoulli"), FAST]
TIMED = [*CHOICES, Config("categorical", bins=8)]  # an epoch of each
PUBLISHED_EPOCHS, PUBLISHED_OBJECTIVE = 63, -95.08  # best public solution (github ladka6/gen-ai-hw3) and its best epoch


class Textbook(nn.Module):
    """A VAE as tutorials have it; forward gives the negative objective of Task 2d, averaged over the batch."""

    def __init__(self, latent_dim: int = 16):
        super().__init__()
        down = [nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.ReLU()) for i, o in ((1, 32), (32, 64), (64, 128))]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(128 * 16, 2 * latent_dim))
        up = [(128, 64, 0), (64, 32, 1), (32, 32, 1)]  # 4 -> 7 -> 14 -> 28
        layers = [nn.Sequential(nn.ConvTranspose2d(i, o, 3, 2, 1, extra), nn.ReLU()) for i, o, extra in up]
        start = [nn.Linear(latent_dim, 128 * 16), nn.ReLU(), nn.Unflatten(1, (128, 4, 4))]
        self.decoder = nn.Sequential(*start, *layers, nn.Conv2d(32, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        logits = self.decoder(mu + torch.exp(log_var / 2) * torch.randn_like(mu))
        kl = -0.5 * (1 + log_var - mu**2 - log_var.exp()).sum()
        return (binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl) / len(x)


def textbook_loader(part: Split, shuffle: bool) -> DataLoader:
    dataset = MNIST.__new__(MNIST)  # its own way of giving images, without its files
    dataset.data, dataset.targets = (part.x[:, 0] * 255).round().byte(), part.y
    dataset.transform, dataset.target_transform = ToTensor(), None
    return DataLoader(dataset, BATCH, shuffle=shuffle)


def textbook_epoch(net: Textbook, train: DataLoader, val: DataLoader) -> float:
    """Seconds of an epoch: a training pass, then the objective of all training and validation images."""
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    started = time.perf_counter()
    for x, _ in train:
        optimiser.zero_grad()
        net(x).backward()
        optimiser.step()
    with torch.no_grad():
        for x, _ in chain(train, val):
            net(x)
    return time.perf_counter() - started


def epoch(learner: tuple, mnist: Mnist, config: Config) -> tuple[float, float]:
    """An epoch as in training, with its evaluations: the objective of the validation images, and seconds."""
    started = time.perf_counter()
    train_epoch(*learner, mnist.train.x, replace(config, epoch_images=1))  # one pass, whatever the data
    evaluate(learner[1].module, mnist.train.x)
    objective = means(evaluate(learner[1].module, mnist.val.x))["elbo"]
    return objective, time.perf_counter() - started


def reached(config: Config, mnist: Mnist, most_epochs: int) -> dict[str, Any]:
    """A training until it has the published objective, or for most_epochs: its epochs, objective, and seconds, with the
    fit of the biases before."""
    started, epochs, objective = time.perf_counter(), 0, -math.inf
    learner = make_learner(config)
    start_from_marginals(learner[0], mnist.train.x)
    while objective < PUBLISHED_OBJECTIVE and epochs < most_epochs:
        epochs += 1
        torch.manual_seed(epochs)  # as the run with seed 0 has it
        objective, _ = epoch(learner, mnist, config)
    return {"epochs": epochs, "objective": objective, "seconds": time.perf_counter() - started}


def main() -> None:
    batches = cli.number(1), 0, "a quick try with so many batches for an epoch, and one epoch"
    options = cli.parser(__doc__, batches=batches).parse_args()
    if options.device not in ("auto", "cpu"):
        raise UsageError(f"device is '{options.device}', but the question is how fast the CPU is; leave --device out")
    options.device = "cpu"
    mnist, source, _ = cli.prepare(options)
    if options.batches:
        mnist = Mnist(mnist.name, *(part.spread(BATCH * options.batches) for part in mnist[1:]))
    net, train, val = Textbook(), textbook_loader(mnist.train, shuffle=True), textbook_loader(mnist.val, shuffle=False)
    limit = 1 if options.batches else TASK_1.max_epochs
    ours, textbook = {}, [textbook_epoch(net, train, val)]
    for config in TRAINED:
        ours[config.run] = reached(config, mnist, limit)
        textbook.append(textbook_epoch(net, train, val))  # before and after each, since machines are noisy
    results = {
        "threads": torch.get_num_threads(),
        "to_published_objective": ours,
        "textbook_epoch_seconds": textbook,
        "textbook_seconds_extrapolated": PUBLISHED_EPOCHS * mean(textbook),
        "epoch_seconds_by_run": {one.run: epoch(make_learner(one), mnist, one)[1] for one in TIMED},
    }
    source.save("benchmark", results)


if __name__ == "__main__":
    cli.main(main)
