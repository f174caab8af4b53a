"""Train the digit classifiers that judge images: one that sees whole images, one that sees left halves only.

Writes data/runs/<name>/model.pt and report/results/classifier.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common import cli
from common.classifier import train_classifier
from common.runs import save_results


def main() -> None:
    mnist = cli.mnist_on(*cli.prepare(cli.parser(__doc__).parse_args()))
    left_half = (torch.arange(28) < 14).expand(28, 28)
    results = {
        name: train_classifier(mnist, cli.name_for(mnist, name), mask)
        for name, mask in (("classifier", None), ("classifier-left", left_half))
    }
    save_results(cli.name_for(mnist, "classifier"), results)


if __name__ == "__main__":
    cli.main(main)
