"""What does the encoder's shortcut cost? The ELBO at Psi* beside that of q(Z|x), on test and on training images.

On training images the gap is amortisation alone: one network for all of them. What is more on test images is the
encoder's overfitting, since Psi* is fitted to each image either way. Writes report/results/gaps-<run>.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import time

from common import cli
from common.config import FAVOURITE
from common.evaluation import log_weights, mean_and_se, own_score
from common.vae import VAE
from task_4 import inference
from task_4.inference import infer

import torch
from torch import Tensor
from tqdm import tqdm

SAMPLES, BLOCK, STREAMS = 200, 100, 2
METHOD = ("STARTS", "WINDOW", "EARLY", "PATIENCE", "MAX_WINDOWS", "LEARNING_RATE", "HALF_TIME")


def main() -> None:
    parser = cli.run_parser(__doc__, FAVOURITE.run)
    parser.add_argument("--images", type=cli.count(2), default=200, help="test and training images each (200)")
    options = parser.parse_args()
    mnist, vae, source = cli.load(options)
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
    score, rows, started = own_score(vae.likelihood), [], time.perf_counter()
    for part in tqdm(x.split(BLOCK), desc="blocks of images"):
        found = [infer(vae, part, stream=stream)[0] for stream in range(STREAMS)]
        weights = [log_weights(vae, part, one.psi.q_z(), SAMPLES, score) for one in found]
        encoder = log_weights(vae, part, vae.q_z(part), SAMPLES, score)
        sampling = [((psi.var(dim=0) + encoder.var(dim=0)) / SAMPLES).sqrt() for psi in weights]
        columns = [[w.mean(dim=0) for w in weights], sampling, [f.steps for f in found], [f.capped for f in found]]
        rows.append(torch.stack([torch.stack(part) for part in [*columns, [encoder.mean(dim=0)] * STREAMS]]))
    psi, error, steps, capped, encoder = torch.cat(rows, dim=2)  # (STREAMS, N) each
    gap = psi - encoder
    return {
        "images": len(x),
        "elbo_psi": with_streams(psi),
        "elbo_encoder": mean_and_se(encoder[0]),
        "gap": with_streams(gap),
        "between_streams": psi.std(dim=0).mean().item(),
        "encoder_better": (gap < 0).double().mean().item(),
        "encoder_better_by_two_errors": (gap < -2 * error).double().mean(dim=1).tolist(),
        "steps": steps.mean().item(),
        "capped": int(capped.sum()),
        "optimisations": capped.numel(),
        "seconds_per_image": (time.perf_counter() - started) / capped.numel(),
    }


def with_streams(values: Tensor) -> dict[str, float]:
    """Mean of values (STREAMS, N), and an error from the spread over images and that of the streams' means."""
    over_images = mean_and_se(values.mean(dim=0))
    return over_images | {"se": (over_images["se"] ** 2 + values.mean(dim=1).var().item() / len(values)) ** 0.5}


if __name__ == "__main__":
    cli.main(main)
