"""Does the stopping rule end too early? What other rules would have done, and models that go on.

By three rules, each with one constant for all models, the epoch of the first plateau, null if there is none while the
learning rate is the first: too few validation images that rose; too small a gain in bits per pixel; and the one that is
used, too small a share of the rise since epoch 0. And what models with independent pixels gain on validation images, at
least 0, when they go on from their best weights and the first learning rate: until the same rule ends it again, and for
thirty epochs with plateaus of ten; in nats of their own ELBO, and these divided by 784 log 2. Writes
report/results/continued.json. Interrupted, it goes on where it was.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.config import CHOICES, TASK_1, TASK_3, Config
from common.evaluation import bits_per_dimension, mean_and_se
from common.mnist import Mnist
from common.runs import Source, open_run, save_checkpoint
from common.training import evaluate, make_learner, means, train
from common.vae import VAE

IMAGES, BITS = 0.6, 0.0005  # of other rules: the smallest sufficient share of images, and gain in bits per pixel
EPOCHS, PATIENCE = 30, 10  # of models that go on
SETTLED = 10_000  # updates after which the average of the weights has forgotten how it began


def main() -> None:
    options, mnist, source, device = cli.with_data(__doc__, max_epochs=(cli.number(0), EPOCHS, "of each, more"))
    rules = {"patience": TASK_1.patience, "rise": TASK_1.min_gain, "images": IMAGES, "bits": BITS}
    results = {"rules": rules, "patience": PATIENCE, "plateaus": {}, "runs": {}}
    for config, vae in source.models([*CHOICES, TASK_3], device):
        results["plateaus"][config.run] = first_plateaus(source.results(config.run), config)
        if config in CHOICES and config.make_likelihood().independent:
            config = replace(config, max_epochs=options.max_epochs + 1)
            runs = {"by_rule": config, "patient": replace(config, patience=PATIENCE)}
            found = {name: continued(one, config.run, vae, mnist, source, device) for name, one in runs.items()}
            results["runs"][config.run] = found
    source.save("continued", results)


def first_plateaus(results: dict[str, Any], config: Config) -> dict[str, int | None]:
    """By each rule the epoch of the first plateau, from a finished run (report/results/<run>.json)."""
    rows = [row for row in results["history"] if row["learning_rate"] == config.learning_rate]
    elbo, n = [row["val"]["elbo"] for row in rows], config.patience
    ends = range(n, len(rows))
    images = [sum(row["rose"]["share"] for row in rows[end - n + 1 : end + 1]) / n >= IMAGES for end in ends]
    bits = [(elbo[end] - elbo[end - n]) / (784 * math.log(2)) >= BITS for end in ends]
    found = {name: n + ok.index(False) if False in ok else None for name, ok in (("images", images), ("bits", bits))}
    ended = len(rows) < len(results["history"]) or results["stopped_by"] == "patience"
    return {"rise": len(rows) - 1 if ended else None, **found}


def continued(config: Config, run: str, best: VAE, mnist: Mnist, source: Source, device: str) -> dict[str, Any]:
    """A training whose history begins with epoch 0 and the best epoch of a run that has ended, with its weights."""
    ended, folder = source.results(run), source.home.runs / "continued" / f"{config.run}-{source.weights[run]}"
    before = evaluate(best, mnist.val.x)
    with open_run(folder):
        if not (folder / "state.pt").exists():
            vae, average, optimiser = make_learner(config, device)
            for model in (vae, average.module):
                model.load_state_dict(best.state_dict())
            average.n_averaged.fill_(SETTLED)
            parts = {"vae": vae, "average": average, "optimiser": optimiser}
            state = {name: part.state_dict() for name, part in parts.items()} | {"best": best.state_dict()}
            history = [ended["history"][0], ended["history"][ended["best_epoch"]] | {"val": means(before)}]
            state |= {"history": history, "val_elbos": [before.elbo.cpu()] * 2}
            save_checkpoint(folder / "state.pt", {"config": config.to_dict(), **state})
        results, weights = train(config, mnist, folder, device)
    vae = config.make_vae().to(device).eval().requires_grad_(False)
    vae.load_state_dict(weights)
    gain = (evaluate(vae, mnist.val.x).elbo - before.elbo).double()
    epochs = len(results["history"]) - 2
    return {"epochs": epochs, "gain": mean_and_se(gain), "bits": mean_and_se(-bits_per_dimension(gain))}


if __name__ == "__main__":
    cli.main(main)
