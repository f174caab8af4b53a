"""What does the encoder's shortcut cost? The ELBO at Psi* beside that of q(Z|x), on images spread over the test set.

Writes report/results/gaps-<run>.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import time

from common import cli
from common.config import FAVOURITE
from common.evaluation import log_weights, mean_and_se, own_score
from task_4 import inference
from task_4.inference import infer

import torch
from tqdm import tqdm

SAMPLES, BLOCK = 200, 100
METHOD = ("STARTS", "WINDOW", "EARLY", "PATIENCE", "MAX_WINDOWS", "LEARNING_RATE", "HALF_TIME")


def main() -> None:
    parser = cli.run_parser(__doc__, FAVOURITE.run)
    parser.add_argument("--images", type=cli.count(2), default=200, help="test images to measure (200)")
    options = parser.parse_args()
    mnist, vae, source = cli.load(options)
    score, rows, seconds = own_score(vae.likelihood), [], 0.0
    for x in tqdm(mnist.test.spread(options.images).x.split(BLOCK), desc="blocks of images"):
        started = time.perf_counter()
        found = infer(vae, x)[0]
        seconds += time.perf_counter() - started
        weights = [log_weights(vae, x, q_z, SAMPLES, score) for q_z in (found.psi.q_z(), vae.q_z(x))]
        psi, encoder = (part.mean(0) for part in weights)  # (N,) each
        error = (sum(part.var(0) for part in weights) / SAMPLES).sqrt()
        rows.append(torch.stack([psi, encoder, error, found.steps, found.capped]))
    psi, encoder, error, steps, capped = torch.cat(rows, dim=1)
    gap = psi - encoder
    results = {
        "method": {name.lower(): getattr(inference, name) for name in METHOD},
        "images": len(gap),
        "samples": SAMPLES,
        "elbo_psi": mean_and_se(psi),
        "elbo_encoder": mean_and_se(encoder),
        "amortisation_gap": mean_and_se(gap),
        "encoder_better": (gap < 0).double().mean().item(),
        "encoder_better_by_two_errors": (gap < -2 * error).double().mean().item(),
        "steps": mean_and_se(steps),
        "capped": int(capped.sum()),
        "seconds_per_image": seconds / len(gap),
    }
    source.save(f"gaps-{options.run}", results)


if __name__ == "__main__":
    cli.main(main)
