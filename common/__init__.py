"""What the tasks share. One direction of flow:

    errors, mnist, grey_levels -> inflated, neighbours -> likelihoods -> vae -> config -> runs -> training -> cli
    vae -> annealing -> evaluation -> training; runs -> figures; cli, figures -> the scripts

task_4/inference.py and report/studies stand above these; report/build.py calls the scripts.

Symbols, as in the assignment          shapes
    B, N    images in a batch, in all      x        (B, 1, 28, 28)  pixels in [0, 1]
    D       784 pixels                     z        (B, K)          latents
    K       latent dimensions              raw      (B, C, 28, 28)  what the decoder returns
    k       bins of the Categorical        q_z      Normal with batch shape (B, K): q(Z|x) or q(Z|Psi)
    C       decoder channels per pixel     p_x      distribution with batch shape (B, 1, 28, 28): p(X|z)
    y       digit labels

Everything called elbo, log_likelihood or kl is in nats per image, summed over D pixels or K latents.
"""

import os
import sys
from types import TracebackType


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while modules are loaded is one line, too, and so is a missing package; later cli.main takes it."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    elif issubclass(kind, ModuleNotFoundError):
        print(f"{error}; in the virtual environment: pip install -r requirements.txt", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _excepthook
if sys.stderr is None or not sys.stderr.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")  # nobody watches the bars; on a closed pipe one would end the script
