"""Task 4a: reconstructions with and without the encoder, and what the encoder's shortcut costs.

Writes a figure of a few images: x | x' from q(Z|Psi*) | x'' from q(Z|x). With --images N it measures the gaps of N test
images instead and writes report/results/task_4a-<run>.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import time

import torch

from common import cli
from common.evaluation import log_weights, mean_and_se, own_score
from common.figures import columns_grid, save_figure
from common.inference import infer
from common.runs import save_results

ROWS, SAMPLES = 8, 200


def main() -> None:
    parser = cli.run_parser(__doc__, "inflated")
    parser.add_argument("--images", type=cli.count(2), help="measure the gaps of so many test images")
    options = parser.parse_args()
    mnist, vae, run = cli.load(options)
    x = mnist.test.x[: options.images or ROWS]
    started = time.perf_counter()
    found = infer(vae, x)  # Psi* for each image
    seconds = time.perf_counter() - started
    q_psi, q_x = found.psi.q_z(), vae.q_z(x)  # q(Z|Psi*) and, for comparison, q(Z|x)
    if not options.images:
        with torch.no_grad():
            columns = [x, *(vae.images(q_z.sample()) for q_z in (q_psi, q_x))]  # x, x' and x''
        save_figure(columns_grid(columns, ["x", "x'", "x''"], width=2.6), f"{run}-psi-reconstructions", run)
        return

    score = own_score(vae.likelihood)
    with_psi, with_encoder = (log_weights(vae, x, q_z, SAMPLES, score) for q_z in (q_psi, q_x))  # (SAMPLES, N)
    gap = with_psi.mean(0) - with_encoder.mean(0)
    error = ((with_psi.var(0) + with_encoder.var(0)) / SAMPLES).sqrt()
    results = {
        "images": len(x),
        "samples": SAMPLES,
        "elbo_psi": mean_and_se(with_psi.mean(0)),
        "elbo_encoder": mean_and_se(with_encoder.mean(0)),
        "amortisation_gap": mean_and_se(gap),
        "encoder_better": (gap < 0).double().mean().item(),
        "encoder_better_by_two_errors": (gap < -2 * error).double().mean().item(),
        "steps": mean_and_se(found.steps),
        "capped": int(found.capped.sum()),
        "seconds": seconds,
        "seconds_per_image": seconds / len(x),
    }
    save_results(cli.name_for(mnist, f"task_4a-{options.run}"), results, run)


if __name__ == "__main__":
    cli.main(main)
