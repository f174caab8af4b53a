"""Task 1a to 1c: train the VAE with the Gaussian p(X|z) until the stopping criterion ends it.

    the data                   common/mnist.py: checked by MD5; / 255; split; their numbers are printed below
1a  the networks               common/vae.py: Encoder, Decoder, VAE
    the hyperparameters        common/config.py, each with its reason; the optimiser: make_learner in common/training.py
1b  log p(x|z)                 common/likelihoods.py: Gaussian
    the ELBO                   common/vae.py: elbo; of all training and validation images: evaluate in training.py
    the graph                  task_1/curves.py
1c  the stopping criterion     common/training.py: EarlyStopping; its place in the training: train
1d  images                     task_1/reconstruct.py, task_1/sample.py

Writes data/runs/<run>/ and report/results/<run>.json. Interrupted, it goes on where it was when called again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import TASK_1
from common.errors import say
from common.training import train_run


def main() -> None:
    options = cli.training_parser(__doc__, TASK_1).parse_args()
    (config,) = cli.configs_of(options)
    mnist, source, device = cli.prepare(options)
    say(f"{len(mnist.train.x)} + {len(mnist.val.x)} training and validation images, {len(mnist.test.x)} test images")
    train_run(config, mnist, source, device)  # what it does: train in common/training.py


if __name__ == "__main__":
    cli.main(main)
