"""The settings of a training, each with its default and its reason."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from common.errors import UsageError
from common.likelihoods import LIKELIHOODS


def setting(default: Any, text: str, at_least: float = 0, below: float = math.inf) -> Any:
    """A field with its default, its help text and the values it may take."""
    return field(default=default, metadata={"help": text, "at_least": at_least, "below": below})


@dataclass(frozen=True)
class Config:
    """All that decides, with the data, what a training gives. Raises UsageError for values that make no sense."""

    likelihood: str = field(metadata={"help": f"p(X|z): {', '.join(LIKELIHOODS)}"})
    latent_dim: int = setting(32, "K, the dimensions of the latent space", at_least=2)
    width: int = setting(32, "channels of the convolutions on 7x7", at_least=2)
    hidden: int = setting(256, "units of the dense layers", at_least=1)
    batch_size: int = setting(128, "images per step", at_least=1)
    learning_rate: float = setting(2e-3, "of AdamW, until the first plateau of the validation ELBO", at_least=1e-9)
    beta_2: float = setting(0.99, "of AdamW: its memory of squared gradients, 100 steps instead of 1000", below=1)
    weight_decay: float = setting(0.05, "of AdamW: against the gap between training and validation")
    max_grad_norm: float = setting(1000.0, "longer gradients are cut: a safety net for densities", at_least=1e-9)
    ema_decay: float = setting(0.998, "of the average of the weights, which is what is evaluated and kept", below=1)
    patience: int = setting(3, "a plateau: so many epochs without enough improvement", at_least=1)
    min_gain: float = setting(
        0.002, "enough: this share, times the likelihood's creep, of the validation ELBO's gain since epoch 0", below=1
    )
    drops: int = setting(2, "at so many plateaus the learning rate falls; at the next the training ends")
    drop_factor: float = setting(0.25, "by which the learning rate falls", at_least=1e-9, below=1)
    max_epochs: int = setting(200, "stop after so many epochs in any case")
    seed: int = setting(0, "of initial weights, batches and noise")

    def __post_init__(self) -> None:
        if self.likelihood not in LIKELIHOODS:
            raise UsageError(f"likelihood is '{self.likelihood}', expected one of {', '.join(LIKELIHOODS)}")
        for item in fields(self):
            value, limits = getattr(self, item.name), item.metadata
            if item.type is not str and not limits["at_least"] <= value < limits["below"]:
                wanted = f"at least {limits['at_least']:g}"
                wanted += f" and below {limits['below']:g}" if limits["below"] < math.inf else " and finite"
                raise UsageError(f"{item.name} is {value}, expected {wanted}")

    def run_name(self, dataset: str) -> str:
        """E.g. "gaussian-k32", "bernoulli-k32-seed1", "digits-gaussian-k32"."""
        stand_in = "" if dataset == "mnist" else f"{dataset}-"
        seed = f"-seed{self.seed}" if self.seed else ""
        return f"{stand_in}{self.likelihood}-k{self.latent_dim}{seed}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def differences(self, other: "Config") -> list[str]:
        """The names of the settings that differ, but for max_epochs, which may grow when a run goes on."""
        mine, others = self.to_dict(), other.to_dict()
        return [name for name in mine if mine[name] != others[name] and name != "max_epochs"]
