"""Does the stopping rule end too early? Models go on from their best weights at the first learning rate.

The same rule ends that, too, but with more patience, so that no answer is shorter than thirty epochs. Writes
report/results/continued.json: how much better the models with independent pixels have become on validation images, in
the units of the ELBO and per pixel; the best epoch counts, so a gain is never negative. Interrupted, it goes on where
it was.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dataclasses import replace
from typing import Any

from common import cli
from common.config import CHOICES, TASK_1, Config
from common.evaluation import bits_per_dimension, mean_and_se
from common.mnist import Mnist
from common.runs import Source, open_run, save_checkpoint
from common.training import evaluate, make_learner, means, train

PATIENCE = 10  # epochs without enough gain, instead of 3
SETTLED = 10_000  # updates after which the average of the weights has forgotten how it began


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--max-epochs", type=cli.count(0), default=TASK_1.max_epochs, help="of each (%(default)s)")
    options = parser.parse_args()
    mnist, source, device = cli.prepare(options)
    models = [config for config in source.trained(CHOICES) if config.make_likelihood().independent]
    models = [replace(config, patience=PATIENCE, max_epochs=options.max_epochs + 1) for config in models]
    results = {config.run: continued(config, mnist, source, device) for config in models}
    source.save("continued", {"images": len(mnist.val.x), "runs": results})


def continued(config: Config, mnist: Mnist, source: Source, device: str) -> dict[str, Any]:
    """A training whose history begins with epoch 0 and the best epoch of the one that has ended, with its weights."""
    best, ended = source.vae(config.run, device), source.results(config.run)
    folder = source.home.runs / "continued" / f"{config.run}-{source.weights[config.run]}"
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
            save_checkpoint(folder / "state.pt", {"config": config.to_dict(), "dataset": mnist.name, **state})
        results, weights = train(config, mnist, folder, device)
    best.load_state_dict(weights)
    gain = (evaluate(best, mnist.val.x).elbo - before.elbo).double()
    epochs = len(results["history"]) - 2
    return {"epochs": epochs, "gain": mean_and_se(gain), "bits": mean_and_se(-bits_per_dimension(gain))}


if __name__ == "__main__":
    cli.main(main)
