"""Build report/report.pdf from report.typ, report/results and report/figures.

Without options only the PDF; it says in one line what is missing, or was made otherwise than the report wants it, and
builds nothing then. --all trains and makes the sheet's answers where they are not as wanted, --studies what else the
report shows; interrupted, both go on where they were. --zip also writes report/submission.zip, as it is handed in.
"""

import argparse
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.config import FAVOURITE, LEARNED, TASK_1, TASK_3, Config
from common.errors import CheckpointError, UserError, say
from common.mnist import ROOT
from common.runs import find_model, fingerprint, home, is_stamp, load_checkpoint, read_json, trained, write

import typst
from PIL import Image

AUTHOR = ("name", "student_number", "work")
REPORT, PLACE = ROOT / "report", home("mnist")
CODE = ["common", "task_1", "task_2", "task_3", "task_4", "report", "tests", "data/README.md"]
CODE += ["README.md", "requirements.txt", "pyproject.toml"]


class Step:
    """A command, the minutes that it takes on two cores, and what it writes, with * for the run that it names."""

    def __init__(self, minutes: float, command: str, *writes: str):
        self.minutes, self.command = minutes, command
        self.writes = [name.replace("*", command.partition("--run ")[2].partition(" ")[0]) for name in writes]


def training(minutes: float, config: Config) -> Step:
    return Step(minutes, config.command, f"{config.run}.json")


REPORTED = ["beta", "categorical", "bernoulli", "inflated", "neighbours"]
KINDS, BERNOULLI = ("*-curves.png", "*-reconstructions.png", "*-samples.png"), Config("bernoulli")
COMPLETED = ("completions-*.json", "*-worst-completions.png", "*-several-completions.png")
ANSWERS = [
    training(15, TASK_1),
    *(training(minutes, Config(name)) for name, minutes in zip(REPORTED, (11, 23, 8, 13, 22), strict=True)),
    training(8, TASK_3),
    Step(0.3, f"task_1/curves.py --run {TASK_1.run}", "*-curves.png"),
    Step(0.3, f"task_1/reconstruct.py --run {TASK_1.run}", "*-reconstructions.png"),
    Step(0.3, f"task_1/sample.py --run {TASK_1.run}", "*-samples.png"),
    *(Step(0.3, f"task_2/figures.py --run {Config(name).run}", *KINDS) for name in REPORTED if name != "bernoulli"),
    Step(0.3, f"task_2/figures.py --run {BERNOULLI.run}", *KINDS, "*-binary-samples.png"),
    Step(3, "task_2/compare.py", "comparison.json"),
    Step(0.3, f"task_1/curves.py --run {TASK_3.run}", "*-curves.png"),
    Step(0.3, f"task_3/latent_2d.py --run {TASK_3.run}", "*-latent-2d.png"),
    Step(0.3, f"task_3/latent_pca.py --run {BERNOULLI.run}", "*-latent-pca.png"),
    Step(0.3, f"task_3/interpolate.py --run {FAVOURITE.run}", "*-interpolation.png"),
    Step(0.3, f"task_4/reconstruct.py --run {FAVOURITE.run}", "*-psi-reconstructions.png"),
    Step(0.3, f"task_4/complete.py --run {FAVOURITE.run}", "*-completions.png"),
]
STUDIES = [
    *(training(7, Config("bernoulli", seed=seed)) for seed in (1, 2)),
    training(19, Config("categorical", seed=1)),
    training(15, Config("inflated", seed=1)),
    training(7, replace(TASK_3, seed=1)),
    training(4, Config("bernoulli", latent_dim=TASK_3.latent_dim)),  # Task 3a at the others' learning rate
    Step(2, "report/studies/classifier.py", "classifier.json"),
    Step(8, "report/studies/benchmark.py", "benchmark.json"),
    Step(270, "report/studies/variants.py", "variants.json"),
    Step(60, "report/studies/continued.py", "continued.json"),
    *(training(13, config) for config in LEARNED),
    Step(0.3, f"task_1/sample.py --run {LEARNED[-1].run}", "*-samples.png"),
    Step(20, "report/studies/samples.py", "samples.json"),
    Step(1, "report/studies/pixel_levels.py", "pixel-levels.json", "pixel-levels.png"),
    Step(2, f"report/studies/binary.py --run {BERNOULLI.run}", "binary-*.json"),
    Step(2, "report/studies/latents.py", "latents.json"),
    Step(10, "report/studies/stopping.py", "stopping.json", "stopping.png"),
    Step(10, f"report/studies/posterior.py --run {TASK_3.run}", "posterior-*.json", "*-posterior.png"),
    Step(5, f"report/studies/gaps.py --run {FAVOURITE.run}", "gaps-*.json"),
    Step(7, f"report/studies/gaps.py --run {BERNOULLI.run} --images 1000", "gaps-*.json"),
    Step(12, f"report/studies/completions.py --run {FAVOURITE.run}", *COMPLETED),
    Step(24, f"report/studies/completions.py --run {BERNOULLI.run} --images 1000", *COMPLETED),
]


def stamp_of(path: Path) -> dict[str, Any]:
    """The source of a result or figure; {} if the file does not say it."""
    try:
        if path.suffix == ".json":
            return read_json(path)["source"]
        with Image.open(path) as image:
            image.verify()  # reading the text alone passes over damaged pixels
        with Image.open(path) as image:
            source = json.loads(image.text["Source"])
            return source if is_stamp(source) else {}
    except (CheckpointError, OSError, KeyError, AttributeError, ValueError, SyntaxError):  # the last from Pillow
        return {}


def weights_of(run: str, known: dict[str, str]) -> str | None:
    """The fingerprint of the weights that there are of a run; where they are not kept, the one in its results."""
    if run not in known and run not in trained(PLACE):
        name = "classifier" if run.startswith("classifier") else run
        known[run] = stamp_of(PLACE.results / f"{name}.json").get("weights", {}).get(run)
    elif run not in known:
        try:
            content = load_checkpoint(find_model(PLACE, run), {"weights"})
            known[run] = fingerprint(content["weights"])
            if "config" in content:
                config = Config.of_run(run)
                config.make_vae().load_state_dict(content["weights"])
                known[run] = "of other settings" if config.differences(content["config"]) else known[run]
        except (UserError, RuntimeError):  # damaged, of a likelihood that is gone, or of a network that has changed
            known[run] = "damaged"
    return known[run]


def problem(wanted: Step, known: dict[str, str]) -> str | None:
    """Why a step has to be done (again), or None; known: fingerprints of weights that were read before."""
    for name in wanted.writes:
        path = (PLACE.results if name.endswith(".json") else PLACE.figures) / name
        if not os.path.isfile(path):
            return f"{name} is missing"
        if not (source := stamp_of(path)):
            return f"{name} cannot be read"
        if source["command"] != wanted.command:
            return f"{name} was made by {source['command']}"
        if other := [run for run, mark in source["weights"].items() if weights_of(run, known) != mark]:
            if damaged := [str(find_model(PLACE, run)) for run in other if known[run] == "damaged"]:
                return f"{name} is of weights that cannot be used: bring back {', '.join(damaged)}"
            return f"{name} was made with other weights of {', '.join(other)}"
        settings = read_json(path).get("settings") if path.suffix == ".json" else None  # of a training
        if isinstance(settings, dict) and (other := Config.of_run(path.stem).differences(settings)):
            return f"{name} is of a training with other {', '.join(other)}"
    return None


def make(steps: list[Step]) -> None:
    """Do the steps that have to be done, in their order."""
    for i, wanted in enumerate(steps):
        known: dict[str, str] = {}  # anew for each step, since each may train
        if reason := problem(wanted, known):
            rest = sum(later.minutes for later in steps[i:] if problem(later, known))
            say(f"step {i + 1} of {len(steps)}, about {rest:.0f} minutes to go: {wanted.command} ({reason})")
            command = [sys.executable, *wanted.command.split(), "--dataset", "mnist"]
            if code := subprocess.run(command, cwd=ROOT).returncode:
                raise UserError(f"{wanted.command} ended with exit code {code}; the same command goes on from there")


def read_authors(path: Path) -> dict[str, Any]:
    """authors.toml; an absent file is an empty one. Raises UserError naming file, line and fault."""
    if not os.path.lexists(path):
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:  # tomllib names the line
        raise UserError(f"{path}: {error}") from error
    authors = content.get("author", [])
    fits = content.keys() <= {"author"} and isinstance(authors, list) and all(isinstance(row, dict) for row in authors)
    texts = [(key, value) for row in authors for key, value in row.items()] if fits else []
    if not fits or not all(key in AUTHOR and isinstance(value, str) for key, value in texts):
        raise UserError(f"{path}: expected a block [[author]] for each of you, with {', '.join(AUTHOR)} in quotes")
    return content


def build_pdf(target: Path = REPORT / "report.pdf", authors: Path = REPORT / "authors.toml") -> None:
    """Compile the report. Raises UserError if anything that it shows is missing or not as wanted."""
    known: dict[str, str] = {}
    if reasons := [reason for wanted in ANSWERS + STUDIES if (reason := problem(wanted, known))]:
        raise UserError(f"no PDF: {'; '.join(reasons)}. To make this again: python report/build.py --all --studies")
    inputs = {"authors": json.dumps(read_authors(authors))}
    try:
        pdf = typst.compile(REPORT / "report.typ", root=REPORT, sys_inputs=inputs)
    except typst.TypstError as error:
        where = (error.diagnostic.partition("┌─ ")[2].split() or ["report.typ"])[0]  # with line and column
        raise UserError(f"{where}: {error}; a result that lacks a number is older than the code: delete it") from error
    write(target, lambda file: file.write(pdf))
    say(f"wrote {target}")


def build_zip(target: Path = REPORT / "submission.zip") -> Path:
    """The code with results and figures, and the weights that figures and studies were made with: no data, no caches.

    Raises CheckpointError if these are not all there.
    """
    steps = [step for step in ANSWERS + STUDIES if "train" not in step.command]
    runs = {run for step in steps for name in step.writes for run in stamp_of(PLACE.results / name).get("weights", {})}
    used = {run: find_model(PLACE, run) for run in sorted(runs)}

    def fill(file: Any) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            for path in [path for name in CODE for path in [ROOT / name, *sorted((ROOT / name).rglob("*"))]]:
                hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts)
                if path.is_file() and not hidden and path.suffix not in (".zip", ".pdf", ".tmp"):
                    archive.write(path, path.relative_to(ROOT))
            for run, path in used.items():
                archive.write(path, f"data/shipped/{run}.pt")

    write(target, fill)
    say(f"wrote {target}")
    return target


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--all", action="store_true", help="train and make the sheet's answers, where not as wanted")
    parser.add_argument("--studies", action="store_true", help="make the studies, too, where not as wanted")
    parser.add_argument("--zip", action="store_true", help="write the submission, too")
    options = parser.parse_args()
    make((ANSWERS if options.all else []) + (STUDIES if options.studies else []))
    build_pdf()
    if options.zip:
        build_zip()


if __name__ == "__main__":
    cli.main(main)
