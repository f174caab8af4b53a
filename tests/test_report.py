import json
import re
import shutil
import zipfile

import pytest
import typst
from conftest import ROOT

from common import runs
from common.errors import UserError
from common.likelihoods import LIKELIHOODS
from report import build

SOURCE = (ROOT / "report" / "report.typ").read_text()
TASKS = ["1a", "1b", "1c", "1d", "2a", "2b", "2c", "2d", "2e", "3a", "3b", "3c", "4a", "4b"]


@pytest.fixture
def report(tmp_path, monkeypatch):
    """A copy of the results and figures, to be damaged."""
    for name in ("RESULTS", "FIGURES"):
        copy = tmp_path / name
        shutil.copytree(getattr(build, name), copy)
        monkeypatch.setattr(build, name, copy)
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(runs, "RESULTS", build.RESULTS)
    return tmp_path


def test_pdf_is_built_and_has_all_headings(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RESULTS", build.RESULTS)
    path = build.build_pdf(tmp_path / "report.pdf")
    assert 100_000 < path.stat().st_size < 5_000_000
    headings = json.loads(typst.query(ROOT / "report" / "report.typ", "heading", root=ROOT))
    titles = [json.dumps(heading["body"], ensure_ascii=False) for heading in headings]
    found = [task for title in titles for task in re.findall(r'"Task (\d[a-e])"', title)]
    assert found == TASKS
    assert any("Task 5" in title for title in titles)


def test_same_inputs_same_pdf(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RESULTS", build.RESULTS)
    first, second = (build.build_pdf(tmp_path / f"{i}.pdf").read_bytes() for i in range(2))
    assert first == second


def test_missing_result_or_figure_breaks_the_build(report):
    (build.RESULTS / "sweep.json").unlink()
    (build.FIGURES / "comparison.png").unlink()
    with pytest.raises(UserError, match=r"sweep\.json is missing.*comparison\.png is missing.*--all"):
        build.build_pdf(report / "report.pdf")
    assert not (report / "report.pdf").exists()


def test_missing_run_is_named_with_all_that_was_made_from_it(report):
    (build.RESULTS / "gaussian-k32.json").unlink()
    with pytest.raises(UserError, match=r"gaussian-k32\.json is missing.*gaussian-k32-curves\.png is older"):
        build.build_pdf(report / "report.pdf")


def test_quick_try_breaks_the_build(report):
    path = build.RESULTS / "benchmark.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"complete": False}))
    with pytest.raises(UserError, match=r"benchmark\.json is from a quick try"):
        build.build_pdf(report / "report.pdf")


def test_figure_older_than_its_run_breaks_the_build(report):
    path = build.RESULTS / "gaussian-k32.json"
    results = json.loads(path.read_text())
    results["history"][-1]["val"]["elbo"] += 1
    path.write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"gaussian-k32-curves\.png is older than gaussian-k32"):
        build.build_pdf(report / "report.pdf")


def test_run_on_the_stand_in_breaks_the_build(report):
    path = build.RESULTS / "gaussian-k32.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": "digits"}))
    with pytest.raises(UserError, match=r"gaussian-k32\.json is not from MNIST"):
        build.build_pdf(report / "report.pdf")


def test_every_result_and_figure_of_the_report_has_a_step():
    galleries = re.findall(r'gallery\("([^"]+)"', SOURCE)
    shown = {f"{run}-{kind}" for run in galleries for kind in ("reconstructions", "samples")}
    shown |= set(re.findall(r'picture\("([^"]+)"', SOURCE)) | set(re.findall(r'image\("figures/([^"]+)\.png"', SOURCE))
    assert shown == {name for step in build.STEPS for name in step.figures}
    read = set(re.findall(r'results\("([^"]+)"\)', SOURCE))
    read -= {"tried", "bernoulli-k32-seed3"}  # what is no longer in the code; a training that takes longer
    assert read == {name for step in build.STEPS for name in step.results}
    for step in build.STEPS:
        assert (ROOT / step.command.split()[0]).is_file()


def test_no_measured_number_is_typed_by_hand():
    text = re.sub(r"#let cited = \(.*?\n\)", "", SOURCE, flags=re.S)  # numbers of others, with their source
    text = re.sub(r"//.*", "", text)
    text = re.sub(r"-?\d+(\.\d+)?(pt|em|cm|fr|%)(?!\w)", "", text)  # lengths
    text = re.sub(r"\$[^$]*\$", "", text)  # formulas
    # follows from e^8; Phi(1/2); a font's or rule's size; the definition of an active latent
    allowed = {"1.7", "0.6915", "0.5", "0.01"}
    found = set(re.findall(r"(?<![\w.])\d+\.\d+", text)) - allowed
    assert not found


def test_stated_shares_of_the_stopping_criterion_are_those_of_the_code():
    for name in ("gaussian", "beta", "categorical", "inflated"):
        assert f"#fixed({LIKELIHOODS[name].creep} * settings.min_gain, 3)" in SOURCE


def test_results_in_the_readme_are_those_of_the_runs():
    readme = (ROOT / "README.md").read_text()
    models = json.loads((build.RESULTS / "comparison.json").read_text())["models"]
    bits = [f"{models[name]['grey_levels']['elbo']['mean']:.3f}" for name in ("categorical", "beta", "gaussian")]
    assert f"Categorical, Beta, Gaussian, no latents | {', '.join(bits)}" in readme
    assert f"**{models['inflated']['grey_levels']['elbo']['mean']:.3f}** (zero/one-inflated)" in readme
    for name in ("bernoulli-k32", "bernoulli-k32-seed3"):
        history = json.loads((build.RESULTS / f"{name}.json").read_text())["history"]
        assert f"**{max(row['val']['elbo'] for row in history):.2f}**" in readme
    seconds = json.loads((build.RESULTS / "benchmark.json").read_text())["seconds_to_published_objective"]
    assert f"**{seconds:.0f} s**" in readme


def test_authors_may_be_absent_and_are_then_to_be_filled_in(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RESULTS", build.RESULTS)
    absent = build.build_pdf(tmp_path / "absent.pdf", authors=tmp_path / "absent.toml").stat().st_size
    (tmp_path / "authors.toml").write_text('[[author]]\nname = "Ada"\nstudent_number = "1"\nwork = "All."\n')
    filled = build.build_pdf(tmp_path / "filled.pdf", authors=tmp_path / "authors.toml").stat().st_size
    assert filled != absent
    assert "to be filled in" in SOURCE


def test_zip_holds_the_code_and_no_data(tmp_path):
    with zipfile.ZipFile(build.build_zip(tmp_path / "submission.zip")) as archive:
        names = archive.namelist()
    assert {"README.md", "requirements.txt", "task_1/train.py", "common/style.mplstyle"} <= set(names)
    assert {name.split("/")[0] for name in names} == set(build.CODE)
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pt", ".gz", ".pyc"))]
