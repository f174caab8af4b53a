"""When would other stopping rules have found the first plateau? One constant for all models, on their histories.

The rules: too few validation images that rose; too small a gain in bits per pixel; and the one that is used, too small
a share of the rise since epoch 0, whose first plateau ends the first learning rate. Writes
report/results/plateaus.json; null where a rule finds none until then.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import math
from typing import Any

from common import cli
from common.config import CHOICES, TASK_1, TASK_3, Config

IMAGES, BITS = 0.6, 0.0005  # the smallest sufficient share of images, and gain in bits per pixel


def main() -> None:
    source = cli.source_of(cli.parser(__doc__).parse_args())
    patience = TASK_1.patience
    results = {"patience": patience, "rise": TASK_1.min_gain, "images": IMAGES, "bits": BITS, "runs": {}}
    for config in source.trained([*CHOICES, TASK_3]):
        results["runs"][config.run] = first_plateaus(source.results(config.run), config)
    source.save("plateaus", results)


def first_plateaus(results: dict[str, Any], config: Config) -> dict[str, int | None]:
    """By each rule the epoch of the first plateau, while the learning rate is the first."""
    rows = [row for row in results["history"] if row["learning_rate"] == config.learning_rate]
    elbo, n = [row["val"]["elbo"] for row in rows], config.patience
    ends = range(n, len(rows))
    images = [sum(row["rose"]["share"] for row in rows[end - n + 1 : end + 1]) / n >= IMAGES for end in ends]
    bits = [(elbo[end] - elbo[end - n]) / (784 * math.log(2)) >= BITS for end in ends]
    rules = {"images": images, "bits": bits}
    found = {name: n + enough.index(False) if False in enough else None for name, enough in rules.items()}
    ended = len(rows) < len(results["history"]) or results["stopped_by"] == "patience"
    return {"rise": len(rows) - 1 if ended else None, **found}


if __name__ == "__main__":
    cli.main(main)
