"""The report's build, on inputs of its own: what the scripts made from the stand-in, under the names that it wants."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from types import SimpleNamespace

from common import runs
from common.config import LEARNED, TASK_3, Config
from common.errors import CheckpointError, UserError
from common.runs import Home, Source, fingerprint, load_checkpoint, read_json
from common.training import evaluate, means
from report import build

import pytest
import typst
from conftest import ROOT, STEPS, written
from PIL import Image, PngImagePlugin

SOURCE = (ROOT / "report" / "report.typ").read_text(encoding="utf-8")
TASKS = ["1a", "1b", "1c", "1d", "2a", "2b", "2c", "2d", "2e", "3a", "3b", "3c", "4a", "4b"]


def stamp(path, command):
    """Say that this command has made a result or figure."""
    if path.suffix == ".png":
        return save_again(path, json.dumps(build.stamp_of(path) | {"command": command}))
    content = json.loads(path.read_text())
    content["source"]["command"] = command
    path.write_text(json.dumps(content))


def save_again(picture, source=None):
    """As another program would, with this text as its source, or none."""
    info = PngImagePlugin.PngInfo()
    if source:
        info.add_text("Source", source)
    with Image.open(picture) as image:
        image.load()
        image.save(picture, pnginfo=info)


@pytest.fixture(scope="session")
def inputs(made, project, tmp_path_factory):
    """All that the report wants, as if its commands had made it."""
    folder, stand_in = tmp_path_factory.mktemp("inputs"), project / "data" / "mnist5k"
    for name in ("results", "figures", "runs"):
        shutil.copytree(stand_in / name, folder / name, ignore=shutil.ignore_patterns("state.pt"))
    for step in STEPS:
        for path in written(step, folder):
            stamp(path, step.command)
    for name in ("report.typ", "references.yml"):
        shutil.copy(ROOT / "report" / name, folder)
    return folder


@pytest.fixture
def report(inputs, tmp_path, monkeypatch):
    """A copy of the inputs, to be damaged, which the build takes for MNIST's."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(build, "REPORT", tmp_path)
    place = Home(tmp_path / "runs", tmp_path / "shipped", tmp_path / "results", tmp_path / "figures")
    monkeypatch.setattr(build, "PLACE", place)
    return tmp_path


def refused(report, *says):
    """The build's refusal."""
    with pytest.raises(UserError) as error:
        build.build_pdf(report / "report.pdf")
    message = str(error.value)
    assert not (report / "report.pdf").exists()
    assert "\n" not in message
    assert "python report/build.py --all" in message
    assert [text for text in says if text not in message] == []
    return message


def test_pdf_is_built_and_has_all_headings(report):
    for name, rows in (("comparison", "models"), ("continued", "runs"), ("continued", "plateaus")):  # fault 48
        path = report / "results" / f"{name}.json"
        results = read_json(path)
        results[rows]["continuous-k32"] = results[rows]["beta-k32"]  # of a further likelihood
        path.write_text(json.dumps(results))
    contents = []
    for _ in range(2):
        build.build_pdf(report / "report.pdf", report / "none.toml")
        contents.append((report / "report.pdf").read_bytes())
    assert contents[0] == contents[1]
    headings = json.loads(typst.query(report / "report.typ", "heading", root=report))
    titles = [json.dumps(heading["body"], ensure_ascii=False) for heading in headings]
    assert [task for title in titles for task in re.findall(r'"Task (\d[a-e])"', title)] == TASKS
    assert any("Task 5" in title for title in titles)


def test_what_is_missing_a_short_try_and_other_settings_break_the_build(report):
    (report / "results" / "latents.json").unlink()
    (report / "figures" / "beta-k32-curves.png").unlink()
    others = {
        "results/benchmark.json": "report/studies/benchmark.py --batches 2",
        "results/gaussian-k32.json": "task_1/train.py --max-epochs 1",
        "figures/gaussian-k32-samples.png": "task_1/sample.py --run gaussian-k32 --seed 3",
    }
    for name, command in others.items():
        stamp(report / name, command)
    made = [f"{name.partition('/')[2]} was made by {command}" for name, command in others.items()]
    results = read_json(path := report / "results" / "bernoulli-k32-seed=1.json")
    results["settings"] |= {"weight_decay": 0.5, "momentum": 1}  # a default has changed since, a setting is gone
    path.write_text(json.dumps(results))
    old = "bernoulli-k32-seed=1.json is of a training with other momentum, weight_decay"
    refused(report, "latents.json is missing", "beta-k32-curves.png is missing", old, *made)


def test_fault_36_a_training_of_ones_own_is_named_with_all_that_hangs_on_it(report):
    """Weights and results anew, by the wanted command: what was made from the old ones is to be made again."""
    path = report / "runs" / "gaussian-k32" / "model.pt"
    content = load_checkpoint(path, {"config", "weights"})
    content["weights"]["decoder.bias"] += 1
    runs.save_checkpoint(path, content)
    refused(report, "gaussian-k32.json was made with other weights of gaussian-k32")
    results = read_json(report / "results" / "gaussian-k32.json")
    results["source"]["weights"]["gaussian-k32"] = fingerprint(content["weights"])
    (report / "results" / "gaussian-k32.json").write_text(json.dumps(results))
    named = {name.split()[0] for name in refused(report).removeprefix("no PDF: ").split("; ")}
    assert {"gaussian-k32-curves.png", "gaussian-k32-samples.png", "comparison.json", "samples.json"} <= named
    assert not any("beta-k32" in name or "bernoulli" in name for name in named)


def test_fault_43_files_that_cannot_be_read_are_to_be_made_again(report):
    save_again(picture := report / "figures" / "beta-k32-curves.png")
    save_again(report / "figures" / "neighbours-k32-samples.png", "5")
    save_again(report / "figures" / "gaussian-k32-samples.png", '{"weights": {}}')
    (report / "figures" / "inflated-k32-curves.png").write_bytes(picture.read_bytes()[:-30] + b"!" * 30)
    (report / "results" / "samples.json").write_text("<<<<<<< HEAD\n{}")
    (report / "runs" / "categorical-k32" / "model.pt").write_bytes(b"")
    shutil.copytree(report / "runs" / "beta-k32", report / "runs" / "gone-k32")  # of a likelihood that was taken back
    assert build.weights_of("gone-k32", {}) == "damaged"
    path = report / "runs" / "inflated-k32" / "model.pt"  # of a network that the code no longer has
    content = load_checkpoint(path, {"config", "weights"})
    content["weights"]["decoder.bias"] = content["weights"]["decoder.bias"][1:]
    runs.save_checkpoint(path, content)
    assert build.weights_of("inflated-k32", {}) == "damaged"
    data = bytearray((report / "figures" / "bernoulli-k32-curves.png").read_bytes())
    start = data.index(b"IDAT")
    data[start + 4 + int.from_bytes(data[start - 4 : start])] ^= 1  # the checksum alone: the text can still be read
    (report / "figures" / "bernoulli-k32-curves.png").write_bytes(data)
    other = f"categorical-k32.json is of weights that cannot be used: bring back {report / 'runs' / 'categorical-k32'}"
    curves = [f"{name}-k32-curves" for name in ("beta", "inflated", "bernoulli")]
    pictures = [*curves, "neighbours-k32-samples", "gaussian-k32-samples"]
    refused(report, *(f"{name}.png cannot be read" for name in pictures), "samples.json cannot be read", other)


def test_all_makes_what_is_not_as_wanted_and_nothing_else(report, monkeypatch):
    (report / "figures" / "gaussian-k32-samples.png").unlink()
    stamp(report / "results" / "latents.json", "report/studies/latents.py --odd")
    called, done = [], SimpleNamespace(returncode=0)
    monkeypatch.setattr(build.subprocess, "run", lambda command, cwd: called.append(command[1:]) or done)
    build.make(build.ANSWERS)
    assert called == [["task_1/sample.py", "--run", "gaussian-k32", "--dataset", "mnist"]]
    build.make(build.STUDIES)
    assert called[1:] == [["report/studies/latents.py", "--dataset", "mnist"]]
    done.returncode = 1
    with pytest.raises(UserError, match="exit code 1; the same command goes on"):
        build.make(build.STUDIES)


def test_every_result_and_figure_of_the_report_has_a_step():
    galleries = re.findall(r'(gallery|portrait)\("([^"]+)"', SOURCE)
    shown = {f"{run}-{kind}.png" for _, run in galleries for kind in ("reconstructions", "samples")}
    shown |= {f"{run}-curves.png" for layout, run in galleries if layout == "portrait"}
    shown |= {f"{name}.png" for name in re.findall(r'picture\("([^"]+)"', SOURCE)}
    shown |= {f"{name}.png" for name in re.findall(r'image\("figures/([^"]+)\.png"', SOURCE)}
    shown |= {f"{name}.json" for name in re.findall(r'results\("([^"]+)"\)', SOURCE)}
    assert shown == {name for step in STEPS for name in step.writes}


def test_no_measured_number_is_typed_by_hand():
    text = re.sub(r"#let cited = \(.*?\n\)", "", SOURCE, flags=re.S)  # numbers of others, with their source
    text = re.sub(r"//.*", "", text)
    text = re.sub(r"-?\d+(\.\d+)?(pt|em|cm|fr|%)(?!\w)", "", text)  # lengths
    text = re.sub(r"\$[^$]*\$", "", text)  # formulas
    text = re.sub(r"(learning_rate|beta_1|sigma_min|eps|shifted)=[\d.]+", "", text)  # a run's name
    assert set(re.findall(r"(?<![\w.])\d+\.\d+", text)) == {"1.7"}  # follows from e^8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[author]]\nname = “Ada”\n", r"authors\.toml: .*line 2"),
        ('[author]\nname = "Ada"\n', r"authors\.toml: expected a block \[\[author\]\]"),
        ("[[author]]\nname = 5\n", r"authors\.toml: expected a block"),
        ('author = ["Ada"]\n', r"authors\.toml: expected a block"),
        ('[[authors]]\nname = "Ada"\n', r"authors\.toml: expected a block"),
        ('[[author]]\nnmae = "Ada"\n', r"authors\.toml: expected a block .* name, student_number, work in quotes"),
    ],
)
def test_fault_38_a_wrong_file_of_authors_is_named(tmp_path, text, says):
    (tmp_path / "authors.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        build.read_authors(tmp_path / "authors.toml")


def test_authors_are_utf_8_with_or_without_mark_and_may_be_absent(tmp_path, report):
    path = tmp_path / "authors.toml"
    assert build.read_authors(path) == {}
    build.build_pdf(report / "absent.pdf", authors=path)
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text('[[author]]\nname = "Zoë"\nstudent_number = "1"\nwork = "All."\n', encoding=encoding)
        assert build.read_authors(path)["author"][0]["name"] == "Zoë"
    build.build_pdf(report / "filled.pdf", authors=path)
    assert (report / "absent.pdf").stat().st_size != (report / "filled.pdf").stat().st_size
    assert "to be filled in" in SOURCE


def test_zip_holds_the_code_and_the_weights_and_no_data(tmp_path):
    with zipfile.ZipFile(build.build_zip(tmp_path / "submission.zip")) as archive:
        names = archive.namelist()
    assert {"README.md", "requirements.txt", "task_1/train.py", "common/style.mplstyle"} <= set(names)
    assert {f"data/shipped/{path.name}" for path in (ROOT / "data" / "shipped").glob("*.pt")} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith((".gz", ".pyc", ".pdf", "state.pt"))]
    assert {name.split("/")[1] for name in names if name.startswith("data/")} == {"README.md", "shipped"}
    assert (tmp_path / "submission.zip").stat().st_size < 45e6


def test_no_zip_without_the_weights_behind_the_results(report):
    shutil.rmtree(report / "runs" / "beta-k32")
    with pytest.raises(CheckpointError, match="no trained run 'beta-k32'"):
        build.build_zip(report / "submission.zip")
    mark = build.weights_of("classifier-left", {})
    shutil.rmtree(report / "runs" / "classifier-left")
    assert build.weights_of("classifier-left", {}) == mark is not None  # that of its result, for the PDF


def test_fault_48_where_a_result_lacks_a_number_is_said(report):
    path = report / "results" / "stopping.json"
    path.write_text(json.dumps({"source": read_json(path)["source"]}))
    with pytest.raises(UserError, match=r"report\.typ:\d+:\d+: dictionary does not contain key .*: delete it"):
        build.build_pdf(report / "report.pdf")


# What is shipped. A user's own training may replace the results; what is compared here is what belongs together.

TRUE_HOME = runs.home("mnist")  # before any test moves it


def shipped():
    """The shipped weights by run, those whose results a training of one's own has replaced left out."""
    for path in sorted(TRUE_HOME.shipped.glob("*.pt")):
        if not (TRUE_HOME.runs / path.stem / "model.pt").is_file():
            yield path.stem, path


def test_shipped_weights_are_those_of_the_results_beside_them():
    for run, path in shipped():
        results = read_json(TRUE_HOME.results / f"{run.split('-')[0] if 'classifier' in run else run}.json")
        assert results["source"]["weights"][run] == fingerprint(load_checkpoint(path, {"weights"})["weights"]), run
        assert path.stat().st_size < 5e6


def test_shipped_weights_give_the_shipped_results_where_mnist_is(real_mnist, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", ROOT)
    for run, _ in shipped():
        if not run.startswith("classifier"):
            source = Source("mnist", "a.py")
            vae, results = source.vae(run), source.results(run)
            elbo = evaluate(vae, real_mnist.test.x).elbo.mean().item()
            assert elbo == pytest.approx(results["test"]["elbo"], abs=0.01), run
            best = results["history"][results["best_epoch"]]["val"]
            assert means(evaluate(vae, real_mnist.val.x)) == pytest.approx(best, abs=0.01), run
            assert Config.of_run(run).command == results["source"]["command"]


def test_results_in_the_readme_are_those_of_the_runs():
    if any(TRUE_HOME.runs.glob("*/model.pt")):
        pytest.skip("trainings of one's own have replaced results")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    models = read_json(TRUE_HOME.results / "comparison.json")["models"]
    bits = {name: f"{row['elbo']['mean']:.3f}" for name, row in models.items()}
    others = [bits[name] for name in ("categorical-k32", "beta-k32", "gaussian-k32", "no latents")]
    assert f"Categorical, Beta, Gaussian, no latents | {', '.join(others)}" in readme
    assert f"**{bits['inflated-k32']}** (zero/one-inflated)" in readme
    assert f"**{bits['neighbours-k32']}** (neighbours)" in readme
    both = read_json(TRUE_HOME.results / "samples.json")["models"][LEARNED[-1].run]["learned"]["bits"]["mean"]
    assert f"**{both:.3f}** (and a learned p(Z))" in readme

    def best(run):
        results = read_json(TRUE_HOME.results / f"{run}.json")
        return f"{max(row['val']['elbo'] for row in results['history']):.2f}", len(results["history"]) - 1

    (first, epochs), (second, _), (third, _) = (best(f"bernoulli-k32{end}") for end in ("", "-seed=1", "-seed=2"))
    assert f"K = 32 | **{first}** ({epochs} epochs; other seeds {second}, {third})" in readme
    flat, flat_seed = (best(f"{TASK_3.run}{end}")[0] for end in ("", "-seed=1"))
    assert f"K = 2 | **{flat}** (another seed {flat_seed}) |" in readme
    full, diagonal = (best(config.run)[0] for config in LEARNED[:2])
    assert f"**{full}** (full covariances), {diagonal} (diagonal)" in readme
    path = TRUE_HOME.results / "benchmark.json"  # of a machine, which a user may measure anew
    diff = ["git", "diff", "--quiet", "HEAD", "--", path]
    if not shutil.which("git") or subprocess.run(diff, cwd=ROOT).returncode != 1:
        seconds = read_json(path)
        fixed, learns = (run["seconds"] for run in seconds["to_published_objective"].values())
        assert f"**{fixed:.0f} s**; **{learns:.0f} s** where p(Z) learns" in readme
        assert f"{seconds['textbook_seconds_extrapolated'] / 60:.0f} minutes (63 epochs" in readme


def test_all_makes_the_answers_and_studies_the_rest(monkeypatch):
    made = []
    monkeypatch.setattr(build, "make", made.append)
    monkeypatch.setattr(build, "build_pdf", lambda: made.append("pdf"))
    monkeypatch.setattr(build, "build_zip", lambda: made.append("zip"))
    for options, steps in (("--all", build.ANSWERS), ("--studies --zip", build.STUDIES), ("", [])):
        monkeypatch.setattr(sys, "argv", ["build.py", *options.split()])
        build.main()
        assert made == [steps, "pdf"] + ["zip"] * options.endswith("zip")
        made.clear()
