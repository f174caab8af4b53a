"""A small digit classifier that judges images: those of a model, and completed ones. How often is it right?

Trains one that sees whole images and one that sees left halves only. Writes data/runs/<name>/model.pt and
report/results/classifier.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.errors import CheckpointError
from common.mnist import Mnist
from common.runs import Source, fingerprint, open_run, save_checkpoint
from common.vae import LEFT

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import trange

BATCH = 128


class Classifier(nn.Module):
    """Images (B, 1, 28, 28) to 10 logits; features gives the 64 activations before them."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((4, 32, 1), (32, 64, 2), (64, 64, 2))  # images of 14x14, 14x14, 7x7 pixels to 4x4
        layers = [layer for i, o, stride in sizes for layer in (nn.Conv2d(i, o, 3, stride, padding=1), nn.ReLU())]
        self.features = nn.Sequential(nn.PixelUnshuffle(2), *layers, nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU())
        self.logits = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))


def load_classifier(source: Source, device: str, name: str = "classifier") -> Classifier:
    """Raises CheckpointError, with the command that trains it, if there is none."""
    net = Classifier()
    try:
        net.load_state_dict(source.load(name, results="classifier")["weights"])
    except (CheckpointError, RuntimeError) as error:
        raise CheckpointError(f"{error}; train it with: python report/studies/classifier.py{source.option}") from error
    return net.to(device).eval().requires_grad_(False)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Distance of the Gaussians fitted to two sets of features, (N, F) each (Heusel et al. 2017)."""
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0).sqrt().sum()  # the trace of the product's root
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root).item()


def inception_score(p_y: Tensor) -> float:
    """exp of the entropy of all labels together minus that of one image, for p(y|x) (N, 10) (Salimans et al. 2016)."""
    entropy = torch.special.entr
    return (entropy(p_y.mean(0)).sum() - entropy(p_y).sum(1).mean()).exp().item()


def train(mnist: Mnist, mask: Tensor, shift: tuple[int, int], epochs: int, name: str) -> Classifier:
    """Trained on images seen where mask is True; a batch is moved by up to so many pixels, up or down, and aside."""
    net = Classifier().to(mnist.train.x.device)
    steps = epochs * -(-len(mnist.train.x) // BATCH)
    optimiser = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    for _ in trange(epochs, desc=name, unit="epoch"):
        for batch in torch.randperm(len(mnist.train.x)).split(BATCH):
            moves = [int(torch.randint(-far, far + 1, ())) for far in shift]
            x = mnist.train.x[batch].roll(moves, dims=(2, 3))
            loss = cross_entropy(net(torch.where(mask, x, 0.0)), mnist.train.y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.requires_grad_(False)


def main() -> None:
    options, mnist, source, device = cli.with_data(__doc__, epochs=(cli.number(1), 8, "of each training"))
    left, results = LEFT.to(device), {}
    for name, mask, shift in (("classifier", torch.ones_like(left), (2, 2)), ("classifier-left", left, (2, 0))):
        with open_run(source.home.runs / name):
            torch.manual_seed(0)
            net = train(mnist, mask, shift, options.epochs, name)
            save_checkpoint(source.home.runs / name / "model.pt", {"weights": net.state_dict()})
        source.weights[name] = fingerprint(net.state_dict())
        right = net(torch.where(mask, mnist.test.x, 0.0)).argmax(1) == mnist.test.y
        results[name] = {"test_accuracy": right.double().mean().item()}
    source.save("classifier", results)


if __name__ == "__main__":
    cli.main(main)
