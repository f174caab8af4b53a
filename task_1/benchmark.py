"""How fast training is on the CPU, beside the textbook way and the machine's limit: report/results/benchmark.json.

The textbook way: a DataLoader over torchvision's MNIST with ToTensor, convolutions of 32, 64 and 128 channels and their
transposes, Adam at 1e-3, batches of 128. Its published run of 68 epochs is extrapolated from the epochs measured here.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import time
from itertools import chain, islice

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from common import cli
from common.config import Config
from common.errors import CheckpointError
from common.mnist import Split
from common.runs import load_results, save_results
from common.training import evaluate, make_learner, train_epoch
from common.vae import elbo

PUBLISHED_EPOCHS, PUBLISHED_OBJECTIVE = 68, -95.08  # of the best public solution (github ladka6/gen-ai-hw3), Task 2d


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
    return DataLoader(dataset, batch_size=128, shuffle=shuffle)


def textbook_epoch(net: Textbook, train: DataLoader, val: DataLoader, batches: int | None) -> float:
    """Seconds of an epoch: a training pass, then the objective of all training and validation images."""
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    started = time.perf_counter()
    for x, _ in islice(train, batches):
        optimiser.zero_grad()
        net(x).backward()
        optimiser.step()
    with torch.no_grad():
        for x, _ in chain(islice(train, batches), islice(val, batches)):
            net(x)
    return time.perf_counter() - started


def own_epoch(config: Config, train: Tensor, val: Tensor) -> dict[str, float]:
    vae, average, optimiser = make_learner(config)
    train_epoch(vae, average, optimiser, train[:1280], config)  # warm up
    times = [time.perf_counter()]
    train_epoch(vae, average, optimiser, train, config)
    times.append(time.perf_counter())
    evaluate(average.module, train)
    evaluate(average.module, val)
    times.append(time.perf_counter())
    with FlopCounterMode(display=False) as counter:
        elbo(vae, train[:128], vae.q_z(train[:128])).elbo.mean().backward()
    flops = counter.get_total_flops() / len(train[:128])
    training, evaluation = times[1] - times[0], times[2] - times[1]
    return {
        "epoch_seconds": training + evaluation,
        "training_seconds": training,
        "evaluation_seconds": evaluation,
        "images_per_second": len(train) / training,
        "flops_per_image": flops,
        "training_gflops": flops * len(train) / training / 1e9,
    }


def matrix_product_gflops(size: int = 2048, repeats: int = 20) -> float:
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    started = time.perf_counter()
    for _ in range(repeats):
        a @ b
    return repeats * 2 * size**3 / (time.perf_counter() - started) / 1e9


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--epochs", type=cli.count(1), default=2, help="epochs of each way, in turns (2)")
    parser.add_argument("--batches", type=cli.count(1), help="a quick try: only so many of the textbook way")
    options = parser.parse_args()
    mnist, _ = cli.prepare(options)
    config = Config("bernoulli")
    net = Textbook()
    train, val = textbook_loader(mnist.train, shuffle=True), textbook_loader(mnist.val, shuffle=False)
    textbook, own = [], []
    for _ in range(options.epochs):  # in turns, since machines are noisy
        textbook.append(textbook_epoch(net, train, val, options.batches))
        own.append(own_epoch(config, mnist.train.x, mnist.val.x))
    results = {name: sum(row[name] for row in own) / len(own) for name in own[0]}
    results["matrix_product_gflops"] = matrix_product_gflops()
    results["share_of_matrix_product_rate"] = results["training_gflops"] / results["matrix_product_gflops"]
    results["textbook_parameters"] = sum(parameter.numel() for parameter in net.parameters())
    results["textbook_epoch_seconds"] = sum(textbook) / len(textbook)
    results["epochs"], results["complete"] = options.epochs, options.batches is None
    results["epoch_ratio"] = results["textbook_epoch_seconds"] / results["epoch_seconds"]
    results["threads"] = torch.get_num_threads()
    runs = [config.run_name(mnist.name)]
    try:
        results |= time_to_target(load_results(runs[0]), results["textbook_epoch_seconds"])
    except CheckpointError as error:
        print(f"without the time to reach {PUBLISHED_OBJECTIVE}: {error}")
        runs = []
    save_results(cli.name_for(mnist, "benchmark"), results, *runs)


def time_to_target(run: dict, textbook_epoch_seconds: float) -> dict[str, float | None]:
    """From the history of our trained run: when it passes the published objective, and how it ends."""
    seconds, reached = 0.0, None
    for row in run["history"]:
        seconds += row["seconds"]
        if reached is None and row["val"]["elbo"] >= PUBLISHED_OBJECTIVE:
            reached = seconds
    published = PUBLISHED_EPOCHS * textbook_epoch_seconds
    best = max(row["val"]["elbo"] for row in run["history"])
    return {
        "published_objective": PUBLISHED_OBJECTIVE,
        "seconds_to_published_objective": reached,
        "textbook_seconds_extrapolated": published,
        "time_ratio": published / reached if reached else None,
        "final_objective": best,
        "final_seconds": run["seconds"],
    }


if __name__ == "__main__":
    cli.main(main)
