"""Build report/report.pdf from report.typ, report/results and report/figures.

Without options only the PDF, and it fails if a result or figure is missing or older than its run. --all first trains
what is missing and makes what is missing or out of date; interrupted, it goes on where it was. --zip also writes
report/submission.zip, the code as it is handed in.
"""

import argparse
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import typst
from PIL import Image

from common import cli
from common.errors import CheckpointError, UserError
from common.figures import FIGURES
from common.likelihoods import LIKELIHOODS
from common.mnist import ROOT
from common.runs import RESULTS, sources, trained_runs

REPORT = ROOT / "report"
CODE = [
    "common",
    "task_1",
    "task_2",
    "task_3",
    "task_4",
    "report",
    "tests",
    "README.md",
    "requirements.txt",
    "pyproject.toml",
]
IMAGES = ["curves", "reconstructions", "samples"]


class Step(NamedTuple):
    """A command, the minutes that it takes on two cores, and what it writes: results, figures, trained models."""

    minutes: float
    command: str
    results: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def training(minutes: float, command: str, run: str) -> Step:
    return Step(minutes, command, results=(run,), models=(run,))


STEPS = [
    training(5, "task_1/train.py", "gaussian-k32"),
    *(
        training(minutes, f"task_2/train.py --likelihood {name}", f"{name}-k32")
        for name, minutes in (("beta", 5), ("categorical", 11), ("bernoulli", 9), ("inflated", 13))
    ),
    *(
        Step(9, f"task_2/train.py --likelihood bernoulli --seed {seed}", results=(f"bernoulli-k32-seed{seed}",))
        for seed in (1, 2)
    ),
    training(7, "task_2/train.py --likelihood bernoulli --latent-dim 2", "bernoulli-k2"),
    Step(2, "task_2/train_classifier.py", results=("classifier",), models=("classifier", "classifier-left")),
    Step(3, "task_1/benchmark.py", results=("benchmark",)),
    Step(0.2, "task_1/curves.py", figures=("gaussian-k32-curves",)),
    Step(0.2, "task_1/reconstruct.py", figures=("gaussian-k32-reconstructions",)),
    Step(0.2, "task_1/sample.py", figures=("gaussian-k32-samples",)),
    Step(
        0.5,
        "task_2/figures.py",
        figures=(
            *(f"{run}-k32-{kind}" for run in list(LIKELIHOODS)[1:] for kind in IMAGES),
            "bernoulli-k32-binary-samples",
        ),
    ),
    Step(2, "task_2/sweep.py", results=("sweep",)),
    Step(3, "task_2/compare.py", results=("comparison",), figures=("comparison",)),
    Step(0.5, "task_3/latent_2d.py", results=("task_3a-bernoulli-k2",), figures=("bernoulli-k2-latent-2d",)),
    Step(0.2, "task_1/curves.py --run bernoulli-k2", figures=("bernoulli-k2-curves",)),
    Step(0.5, "task_3/latent_pca.py", results=("task_3b-bernoulli-k32",), figures=("bernoulli-k32-latent-pca",)),
    Step(0.3, "task_3/interpolate.py", results=("task_3c-inflated-k32",), figures=("inflated-k32-interpolation",)),
    Step(0.5, "task_4/reconstruct.py", figures=("inflated-k32-psi-reconstructions",)),
    Step(2, "task_4/reconstruct.py --images 200", results=("task_4a-inflated-k32",)),
    Step(3, "task_4/reconstruct.py --images 1000 --run bernoulli-k32", results=("task_4a-bernoulli-k32",)),
    Step(2, "task_4/posterior.py", results=("task_4a-bernoulli-k2",), figures=("bernoulli-k2-posterior",)),
    Step(0.5, "task_4/complete.py", figures=("inflated-k32-completions", "inflated-k32-more-completions")),
    *(
        Step(m, f"task_4/complete.py --images {n} --run {run}", (f"task_4b-{run}",), (f"{run}-worst-completions",))
        for m, n, run in ((4, 200, "inflated-k32"), (8, 1000, "bernoulli-k32"))
    ),
]


def problem(step: Step) -> str | None:
    """Why a step has to be done (again), or None."""
    for name in step.models:
        if name not in trained_runs():
            return f"no trained model {name}"
    for path in (
        *(RESULTS / f"{name}.json" for name in step.results),
        *(FIGURES / f"{name}.png" for name in step.figures),
    ):
        if not path.is_file():
            return f"{path.relative_to(ROOT)} is missing"
        if outdated := outdated_runs(path):
            return f"{path.relative_to(ROOT)} is older than {', '.join(outdated)}"
        content = json.loads(path.read_text()) if path.suffix == ".json" else {}
        if content.get("dataset", "mnist") != "mnist":
            return f"{path.relative_to(ROOT)} is not from MNIST"
        if not content.get("complete", True):
            return f"{path.relative_to(ROOT)} is from a quick try"
    return None


def outdated_runs(path: Path) -> list[str]:
    """The runs that a result or figure was made from and that have been trained anew since."""
    if path.suffix == ".json":
        made_from = json.loads(path.read_text()).get("source", {})
    else:
        with Image.open(path) as image:
            made_from = json.loads(image.text["Source"])
    return [run for run, fingerprint in made_from.items() if not is_from(run, fingerprint)]


def is_from(run: str, fingerprint: str) -> bool:
    try:
        return sources([run])[run] == fingerprint
    except CheckpointError:  # the run's own results are missing
        return False


def make_all() -> None:
    """Do the steps that have to be done, in their order."""
    waiting = [step for step in STEPS if problem(step)]
    for i, step in enumerate(STEPS):
        if reason := problem(step):
            rest = sum(later.minutes for later in STEPS[i:] if later in waiting)
            print(
                f"step {i + 1} of {len(STEPS)}, about {rest:.0f} minutes to go: {step.command} ({reason})", flush=True
            )
            command = [sys.executable, *step.command.split(), "--dataset", "mnist"]
            if code := subprocess.run(command, cwd=ROOT).returncode:
                raise UserError(f"{step.command} ended with exit code {code}; --all goes on from there")


def build_pdf(target: Path = REPORT / "report.pdf", authors: Path = REPORT / "authors.toml") -> Path:
    """Compile the report; UserError if anything that it shows is missing or out of date."""
    if reasons := [reason for step in STEPS if (reason := problem(step._replace(models=())))]:
        raise UserError("; ".join(reasons) + "; python report/build.py --all makes what is missing")
    inputs = {"authors": json.dumps(tomllib.loads(authors.read_text()) if authors.is_file() else {})}
    try:
        typst.compile(REPORT / "report.typ", output=target, root=ROOT, sys_inputs=inputs)
    except typst.TypstError as error:
        raise UserError(f"report.typ: {error}") from error
    print(f"wrote {target}")
    return target


def build_zip(target: Path = REPORT / "submission.zip") -> Path:
    """The code with the results and figures of the report: no data, no weights, no caches."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in CODE:
            files = sorted((ROOT / name).rglob("*")) if (ROOT / name).is_dir() else [ROOT / name]
            for file in files:
                made = file.suffix in (".zip", ".pdf") or file.name.startswith("digits-")
                if file.is_file() and "__pycache__" not in file.parts and not made:
                    archive.write(file, file.relative_to(ROOT))
    print(f"wrote {target}")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="train and make what is missing or out of date")
    parser.add_argument("--zip", action="store_true", help="write the submission, too")
    options = parser.parse_args()
    if options.all:
        make_all()
    build_pdf()
    if options.zip:
        build_zip()


if __name__ == "__main__":
    cli.main(main)
