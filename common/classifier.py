"""A small digit classifier that judges images: those of a model (Task 2e) and completed ones (Task 4b)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import trange

from common.errors import CheckpointError
from common.mnist import Mnist
from common.runs import find_model, load_checkpoint, open_run, save_checkpoint

EPOCHS, BATCH = 8, 128


class Classifier(nn.Module):
    """Images (B, 1, 28, 28) to 10 logits; features gives the 64 activations before them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.PixelUnshuffle(2),  # (B, 4, 14, 14)
            nn.Conv2d(4, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),  # (B, 64, 7, 7)
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),  # (B, 64, 4, 4)
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 16, 64),
            nn.ReLU(),
        )
        self.logits = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))


def train_classifier(mnist: Mnist, name: str, mask: Tensor | None = None, seed: int = 0) -> dict[str, float]:
    """Train on the training images, shifted at random by up to two pixels; save and return the accuracies.

    mask: bool (28, 28); the classifier sees only pixels where it is True, the others black.
    """
    torch.manual_seed(seed)
    device = mnist.train.x.device
    net = Classifier().to(device)
    steps = EPOCHS * -(-len(mnist.train.x) // BATCH)
    optimiser = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    visible = torch.ones(28, 28, dtype=torch.bool, device=device) if mask is None else mask.to(device)
    with open_run(name) as folder:
        for _ in trange(EPOCHS, desc=f"classifier {name}", unit="epoch"):
            for batch in torch.randperm(len(mnist.train.x)).split(BATCH):
                shift = torch.randint(-2, 3, (2,)).tolist() if mask is None else (int(torch.randint(-2, 3, ())), 0)
                x = mnist.train.x[batch].roll(shift, dims=(2, 3))
                loss = cross_entropy(net(torch.where(visible, x, 0.0)), mnist.train.y[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        save_checkpoint(folder / "model.pt", {"weights": net.state_dict()})
    parts = {"val": mnist.val, "test": mnist.test}
    predicted = {part: label_probabilities(net, torch.where(visible, data.x, 0.0)) for part, data in parts.items()}
    return {
        f"{part}_accuracy": (predicted[part].argmax(1) == data.y).double().mean().item() for part, data in parts.items()
    }


def load_classifier(name: str, device: str = "cpu") -> Classifier:
    """Raises CheckpointError, with the command that trains it, if there is none."""
    net = Classifier()
    try:
        net.load_state_dict(load_checkpoint(find_model(name), {"weights"})["weights"])
    except (CheckpointError, RuntimeError) as error:
        raise CheckpointError(f"{error}; train it with: python task_2/train_classifier.py") from error
    return net.to(device).eval().requires_grad_(False)


@torch.no_grad()
def label_probabilities(net: Classifier, x: Tensor) -> Tensor:
    """p(y|x), (N, 10)."""
    return torch.cat([net(part).softmax(1) for part in x.split(500)])
