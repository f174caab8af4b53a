"""Are K, sigma_min, eps and k well chosen, and do shifted images help? Models that differ in one setting, each trained
until its rule ends it.

One differs in more: a Gaussian that is trained on the probability of grey levels, and whose mean may leave [0, 1].

Writes report/results/variants.json: for each the ELBO of the validation images and its bits per dimension, latents in
use, Frechet distance of new images to the validation images, and seconds. Interrupted, it goes on from there.
"""

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common import evaluation as ev
from common.config import TASK_1, Config
from common.errors import CheckpointError
from common.likelihoods import LIKELIHOODS, Gaussian, between
from common.mnist import Mnist
from common.runs import Source, fingerprint, open_run, read_json
from common.training import evaluate, train
from common.vae import VAE
from report.studies.classifier import Classifier, frechet_distance, load_classifier
from report.studies.latents import ACTIVE

import torch
from torch import Tensor
from torch.distributions import Normal


class GreyGaussian(Gaussian):
    """A normal cut into the cells of the grey levels; whatever is beyond black or white counts as these."""

    def p_x(self, raw: Tensor) -> Normal:
        return Normal(raw[:, 0:1], between(raw[:, 1:2], self.sigma_min, 2.0))

    def log_prob(self, p_x: Normal, x: Tensor) -> Tensor:
        return self.log_mass(p_x, x).float()


CHOSEN = [Config(name) for name in ("gaussian", "beta", "categorical", "inflated")]


def variants() -> list[Config]:
    LIKELIHOODS["grey_gaussian"] = GreyGaussian  # for this study alone
    return [
        *(Config("gaussian", sigma_min=value) for value in (0.05, 0.0004)),
        Config("grey_gaussian"),
        *(Config("beta", eps=value) for value in (1 / 512, 1e-4)),
        *(Config("categorical", bins=value) for value in (4, 8, 16, 64)),
        *(Config(name, latent_dim=value) for name in ("gaussian", "inflated") for value in (16, 64)),
        *(Config(name, shifted=0.5) for name in ("categorical", "inflated")),
    ]


def main() -> None:
    options, mnist, source, device = cli.with_data(__doc__, max_epochs=(cli.number(0), TASK_1.max_epochs, "of each"))
    classifier, command, wanted = load_classifier(source, device), source.command, variants()
    rows = rows_so_far(source, wanted)
    for config in CHOSEN:
        vae, trained = source.vae(config.run, device), source.results(config.run)
        rows[config.run] = described(config, trained) | measured(vae, mnist, classifier)
    for config in wanted:
        if config.run not in rows:
            config, folder = replace(config, max_epochs=options.max_epochs), source.home.runs / config.run
            with open_run(folder):  # from its last complete epoch
                results, weights = train(config, mnist, folder, device)
            vae = config.make_vae().to(device).eval().requires_grad_(False)
            vae.load_state_dict(weights)
            mark = {"weights": fingerprint(weights)}  # it has no result of its own
            rows[config.run] = described(config, results) | mark | measured(vae, mnist, classifier)
        left = len({config.run for config in wanted} - rows.keys())
        source.command = f"{command}, {left} left" if left else command
        source.save("variants", {"images": len(mnist.val.x), "active_above": ACTIVE, "rows": rows})


def rows_so_far(source: Source, wanted: list[Config]) -> dict[str, Any]:
    """The rows that the same command, interrupted, has left, if the same classifier judged them and settings are so."""
    try:
        before = read_json(source.home.results / "variants.json")
    except CheckpointError:  # there is none, or it is damaged
        return {}
    same = before["source"]["command"].split(",")[0] == source.command
    judge = before["source"]["weights"].get("classifier") == source.weights["classifier"]
    rows, found = {}, before.get("rows") if same and judge else None
    for config in wanted if isinstance(found, dict) else []:
        row = found.get(config.run, {})
        if "settings" in row and not config.differences(row["settings"]):
            rows[config.run] = row
    return rows


def described(config: Config, results: dict[str, Any]) -> dict[str, Any]:
    settings = {name: getattr(config, name) for name in ("likelihood", "latent_dim", "bins", "eps", "sigma_min")}
    epochs = len(results["history"]) - 1
    each = statistics.median(row["seconds"] for row in results["history"])  # a computer may have slept in one of them
    return {**settings, "settings": config.to_dict(), "seconds": each * epochs, "epochs": epochs}


def measured(vae: VAE, mnist: Mnist, classifier: Classifier) -> dict[str, Any]:
    x = mnist.val.x
    grey = evaluate(vae, x, score=ev.grey_mass(vae.likelihood, mnist.train.x))
    bits = {"together": grey.elbo, "reconstruction": grey.log_likelihood, "kl": -grey.kl}
    torch.manual_seed(0)
    new = ev.decoded(vae, vae.p_z.sample((len(x),)), vae.likelihood.show)
    return {
        "elbo": ev.mean_and_se(evaluate(vae, x).elbo),
        "bits": {name: ev.mean_and_se(ev.bits_per_dimension(part)) for name, part in bits.items()},
        "active_latents": int((vae.q_z(mnist.train.x).mean.var(dim=0) > ACTIVE).sum()),
        "frechet": frechet_distance(classifier.features(new), classifier.features(x)),
    }


if __name__ == "__main__":
    cli.main(main)
