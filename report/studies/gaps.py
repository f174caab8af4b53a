"""What does the encoder's shortcut cost? The ELBO at Psi* beside that of q(Z|x), on test and on training images.

On training images the gap is mostly amortisation: one network for all of them. What is more on test images is mostly
the encoder's overfitting, since Psi* is fitted to each image either way. Writes report/results/gaps-<run>.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.config import FAVOURITE
from common.evaluation import log_weights, mean_and_se
from common.vae import VAE
from task_4 import inference

import torch
from torch import Tensor
from tqdm import tqdm

SAMPLES, BLOCK, STREAMS = 200, 100, 2
METHOD = ("STARTS", "WINDOW", "EARLY", "PATIENCE", "MAX_WINDOWS", "LEARNING_RATE", "HALF_TIME")


def main() -> None:
    images = cli.number(2), 200, "test and training images each"
    options, mnist, vae, source = cli.with_model(__doc__, FAVOURITE.run, images=images)
    test, train = (measured(vae, split.spread(options.images).x) for split in (mnist.test, mnist.train))
    mine, theirs = test["gap"], train["gap"]
    results = {
        "method": {name.lower(): getattr(inference, name) for name in METHOD},
        "samples": SAMPLES,
        "test": test,
        "train": train,
        "overfitting": {"mean": mine["mean"] - theirs["mean"], "se": (mine["se"] ** 2 + theirs["se"] ** 2) ** 0.5},
    }
    source.save(f"gaps-{options.run}", results)


def measured(vae: VAE, x: Tensor) -> dict[str, object]:
    """ELBOs and gaps of x (N, 1, 28, 28), in nats, and what the optimisations took."""
    rows = []
    for part in tqdm(x.split(BLOCK), desc="blocks of images"):
        found = [inference.infer(vae, part, stream=stream)[0] for stream in range(STREAMS)]
        q_all = [*(one.psi.q_z() for one in found), vae.q_z(part)]
        weights = torch.stack([log_weights(vae, part, q_z, SAMPLES, vae.likelihood.log_prob) for q_z in q_all])
        rows.append((weights.mean(dim=1), weights.var(dim=1) / SAMPLES, torch.stack([one.steps for one in found])))
    elbo, variance, steps = (torch.cat(parts, dim=1) for parts in zip(*rows, strict=True))
    gap, error = elbo[:-1] - elbo[-1], (variance[:-1] + variance[-1]).sqrt()  # (STREAMS, N) each
    return {
        "images": len(x),
        "elbo_psi": with_streams(elbo[:-1]),
        "elbo_encoder": mean_and_se(elbo[-1]),
        "gap": with_streams(gap) | {"median": gap.mean(dim=0).median().item()},
        "encoder_better_by_two_errors": (gap < -2 * error).double().mean(dim=1).tolist(),
        "steps": steps.mean().item(),
        "capped": int((steps >= inference.WINDOW * inference.MAX_WINDOWS).sum()),
        "optimisations": steps.numel(),
    }


def with_streams(values: Tensor) -> dict[str, float]:
    """Mean of values (STREAMS, N), and an error from the spread over images and that of the streams' means."""
    over_images = mean_and_se(values.mean(dim=0))
    return over_images | {"se": (over_images["se"] ** 2 + values.mean(dim=1).var().item() / len(values)) ** 0.5}


if __name__ == "__main__":
    cli.main(main)
