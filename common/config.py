"""The settings of a training, each with its default and its reason; and a run's name, made from them."""

import inspect
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from common.errors import UsageError
from common.likelihoods import EPS, LIKELIHOODS, RESOLUTION, Likelihood
from common.vae import VAE


def setting(default: Any, text: str, at_least: float = 0, below: float = math.inf) -> Any:
    """A field with its default, its help text and the values it may take."""
    return field(default=default, metadata={"help": text, "at_least": at_least, "below": below})


@dataclass(frozen=True)
class Config:
    """What decides, with the data and the number of threads, what a training gives.

    Raises UsageError for values that make no sense, and for constants that the likelihood does not have.
    """

    likelihood: str
    latent_dim: int = setting(32, "K, the dimensions of the latent space", at_least=2, below=10_000)
    bins: int = setting(32, "k of the Categorical: bins of grey values", at_least=2, below=257)
    eps: float = setting(EPS, "of the Beta: how far pixels are kept from 0 and 1", at_least=1e-7, below=0.5)
    sigma_min: float = setting(RESOLUTION, "of the Gaussian: the smallest sigma", at_least=1e-6, below=0.5)
    components: int = setting(0, "of the mixture of Gaussians that is p(Z) and learns; 0: p(Z) = N(0, I)", below=10_000)
    full_covariances: int = setting(0, "of that mixture: 1 for full ones, 0 for diagonal ones", below=2)
    width: int = setting(32, "channels of the convolutions on 7x7", at_least=2, below=1025)
    hidden: int = setting(256, "units of the dense layers", at_least=1, below=8193)
    batch_size: int = setting(128, "images per step", at_least=1, below=60_001)
    shifted: float = setting(0.0, "share of images shifted by up to a pixel, until the first fall of the rate", below=1)
    epoch_images: int = setting(25_000, "images of an epoch: as many passes as fit, at least one", 1, 10_000_001)
    learning_rate: float = setting(2e-3, "of AdamW, until the first plateau of the validation ELBO", at_least=1e-9)
    beta_1: float = setting(0.9, "of AdamW: its memory of gradients", below=1)
    beta_2: float = setting(0.99, "of AdamW: its memory of squared gradients, 100 steps instead of 1000", below=1)
    amsgrad: int = setting(0, "of AdamW: 1 to divide by the largest memory of squared gradients so far", below=2)
    weight_decay: float = setting(0.1, "of AdamW: against the gap between training and validation")
    max_grad_norm: float = setting(1000.0, "longer gradients, which densities have, are scaled to this length", 1e-9)
    ema_decay: float = setting(0.998, "of the average of the weights, which is what is evaluated and kept", below=1)
    patience: int = setting(3, "a plateau: so many epochs without enough improvement", at_least=1)
    min_gain: float = setting(0.002, "enough: this share of what the validation ELBO gained since epoch 0", below=1)
    drops: int = setting(2, "at so many plateaus the learning rate falls; at the next the training ends")
    drop_factor: float = setting(0.25, "by which the learning rate falls", at_least=1e-9, below=1)
    max_epochs: int = setting(200, "stop after so many epochs in any case", below=100_000)
    seed: int = setting(0, "of initial weights, batches and noise", below=2**40)

    def __post_init__(self) -> None:
        if self.likelihood not in LIKELIHOODS:
            raise UsageError(f"likelihood is '{self.likelihood}', expected one of {', '.join(LIKELIHOODS)}")
        for item in fields(self)[1:]:
            value, limits = getattr(self, item.name), item.metadata
            if not limits["at_least"] <= value < limits["below"]:
                wanted = f"at least {limits['at_least']:g}"
                wanted += f" and below {limits['below']:g}" if limits["below"] < math.inf else " and finite"
                raise UsageError(f"{item.name} is {value}, expected {wanted}")
        if self.full_covariances and not self.components:
            raise UsageError("full_covariances is a setting of a mixture as p(Z): give components, too")
        if wrong := sorted(self.changed().keys() & foreign(self.likelihood)):
            name = ", ".join(wrong)
            raise UsageError(f"{name} is no setting of '{self.likelihood}'; leave it out, or name a likelihood")
        if len(self.run) > 200:  # files have it in their names
            raise UsageError("so many settings are not the defaults that the run's name is too long")

    def changed(self) -> dict[str, Any]:
        """What is not the default, but for likelihood, K, and max_epochs, which may grow when a run goes on."""
        rest = [item for item in fields(self)[2:] if item.name != "max_epochs"]
        return {item.name: getattr(self, item.name) for item in rest if getattr(self, item.name) != item.default}

    @property
    def run(self) -> str:
        """The run's name, e.g. "gaussian-k32" or "beta-k16-eps=0.0001-seed=1": two settings never share one."""
        changed = [f"-{name}={value}" for name, value in self.changed().items()]
        return f"{self.likelihood}-k{self.latent_dim}{''.join(changed)}"

    @classmethod
    def of_run(cls, run: str) -> "Config":
        """The settings that a name stands for. Raises UsageError if it stands for none."""
        head, *rest = re.split(r"-(?=[a-z_0-9]+=)", run)
        types = {item.name: item.type for item in fields(cls)}
        try:
            likelihood, latent_dim = re.fullmatch(r"(.+)-k(\d+)", head).groups()
            changed = {name: types[name](value) for name, value in (part.split("=") for part in rest)}
            return cls(likelihood, int(latent_dim), **changed)
        except (AttributeError, KeyError, TypeError, ValueError, UsageError) as error:
            raise UsageError(f"no run is named '{run}'; a name is like gaussian-k32 or beta-k32-eps=0.0001") from error

    @property
    def command(self) -> str:
        """The command that trains the run: script and all options that are not its defaults."""
        script, preset = f"task_2/train.py --likelihood {self.likelihood}", Config(self.likelihood)
        if self.likelihood == TASK_1.likelihood:
            script = "task_1/train.py"
        elif (self.likelihood, self.latent_dim) == (TASK_3.likelihood, TASK_3.latent_dim):
            script, preset = "task_3/train.py", TASK_3
        mine, usual = self.to_dict(), preset.to_dict()
        options = [f" --{name.replace('_', '-')} {mine[name]}" for name in mine if mine[name] != usual[name]]
        return script + "".join(options)

    def make_likelihood(self) -> Likelihood:
        make = LIKELIHOODS[self.likelihood]
        own = {name: value for name, value in self.changed().items() if name in inspect.signature(make).parameters}
        return make(**own)

    def make_vae(self) -> VAE:
        sizes = self.latent_dim, self.width, self.hidden, self.components
        return VAE(self.make_likelihood(), *sizes, full=self.full_covariances == 1)

    def to_dict(self) -> dict[str, Any]:
        """Without the constants of other likelihoods, whose defaults may change."""
        others = foreign(self.likelihood)
        return {name: value for name, value in asdict(self).items() if name not in others}

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """What differs from what to_dict gave before, in the digits that results keep, but for max_epochs; a setting
        that is newer had its default."""
        now, then = shortened(asdict(self)), shortened({item.name: item.default for item in fields(self)[1:]} | stored)
        names = (now.keys() | then.keys()) - foreign(self.likelihood) - {"max_epochs"}
        return sorted(name for name in names if now.get(name) != then.get(name))


def shortened(content: dict[str, Any]) -> dict[str, Any]:
    """As it stands in a result file: floats with six significant digits. Raises ValueError for NaN or inf."""
    text = json.dumps(content, allow_nan=False)
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.6g}"))


def foreign(likelihood: str) -> set[str]:
    """The names of the settings that other likelihoods are built with, but not this one."""
    constants = {name: set(inspect.signature(make).parameters) for name, make in LIKELIHOODS.items()}
    return set().union(*constants.values()) - constants[likelihood]


TASK_1 = Config("gaussian")
# small sigmas on a crowded plane: smaller and steadier steps, else the ELBO falls by nats within an epoch
TASK_3 = Config("bernoulli", latent_dim=2, learning_rate=5e-4, beta_1=0.97, amsgrad=1)
FAVOURITE = Config("inflated")  # Task 2e's choice among independent pixels: used where the sheet leaves p(X|z) to us
CHOICES = [Config(name) for name in LIKELIHOODS]  # of Tasks 1 and 2
ON_GREY_LEVELS = [config for config in CHOICES if config.make_likelihood().grey_levels]  # they have bits
FULL = Config("bernoulli", components=100, full_covariances=1)
LEARNED = [FULL, *(Config(name, components=200) for name in ("bernoulli", "inflated", "neighbours"))]  # of Task 2e
