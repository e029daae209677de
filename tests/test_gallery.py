"""The gallery says what the data say, and names what is missing; `all` and `draw` go on from it."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import dong_cubic_law, experiments, gallery
from experiments.__main__ import main
from experiments.everything import is_done
from experiments.record import Verdict

FIGURES = Path(__file__).parent.parent / "figures"
NAME = "dong_cubic_law"
KNOWN = {NAME: dong_cubic_law}


@pytest.fixture
def folder(smoke, tmp_path):
    shutil.copytree(smoke(NAME).folder, tmp_path / "figures")
    return tmp_path / "figures"


def change(folder, **arrays):
    path = folder / f"{NAME}.npz"
    with np.load(path) as archive:
        data = dict(archive)
    np.savez_compressed(path, **data | arrays)


def section(page, name):
    return page.split(f"### {name}\n")[1].split("\n### ")[0]


# --- what is said ---------------------------------------------------------------------------------


def test_every_item_of_the_four_papers_is_there():
    names = {paper: " ".join(item.name for item in items) for paper, items in gallery.ITEMS.items()}
    assert set(names) == {"WU", "BRODY", "RIECHERS", "GUPTA"}
    for number in range(1, 10):
        assert re.search(rf"Fig\. (\d and )?{number}\b", names["WU"]), number
    for words in ("Fig. 1a, b", "Fig. 1c, d", "Fig. 2", "3", "Fig. 4", "Tables 1 and 2", "Table 3",
                  "Table 4"):  # fmt: skip
        assert words in names["BRODY"]


def test_an_item_names_experiments_that_exist_or_a_reason():
    for items in gallery.ITEMS.values():
        for item in items:
            assert set(item.experiments) <= set(experiments())
            assert item.experiments or item.instead


def test_claims_are_judged_anew(folder):
    assert "| **reproduced** |" in section(gallery.page(KNOWN, folder), NAME)
    with np.load(folder / f"{NAME}.npz") as archive:
        predicted = archive["predicted"]
    change(folder, predicted=predicted + 1e-5)
    page = gallery.page(KNOWN, folder)
    assert "| **NOT reproduced** |" in section(page, NAME)
    assert "1 claims: 1 NOT reproduced." in page


def test_settings_runtime_and_command_are_given(folder):
    words = section(gallery.page(KNOWN, folder), NAME)
    assert f"python -m experiments run {NAME} --settings smoke --seed 0" in words
    assert '"depth": 12' in words
    assert f"![{NAME}]({NAME}.png)" in words


def test_what_was_not_run_is_named(tmp_path):
    page = gallery.page(KNOWN, tmp_path)
    assert f"Not run yet: `python -m experiments run {NAME}`" in page
    assert "not run yet: two_token_arcs" in page


def test_a_claim_of_parts_says_which_fail():
    parts = {"one": True, "other": False}
    verdict = Verdict("both", "", {"shown": parts}, "", reproduced=False)
    assert gallery.outcome(verdict) == "NOT reproduced (one: yes; other: no)"
    whole = Verdict("both", "", {"shown": parts | {"other": True}}, "", reproduced=True)
    assert gallery.outcome(whole) == "reproduced"


def test_numbers_of_a_verdict_are_short():
    measured = {"a": {"b": 1 / 3, "c": [1.0, True]}, "long": "x" * 500}
    words = gallery.measured(Verdict("", "", measured, "", True))
    assert words == "a, b: 0.3333; a, c: [1, yes]; ..."


def test_bars_do_not_end_a_cell(folder):
    for line in gallery.page(KNOWN, folder).splitlines():
        if line.startswith("| "):
            assert line.replace("\\|", "").count("|") in (4, 5), line


def test_the_committed_gallery_is_that_of_the_data():
    """But for digits, which may differ between processors."""
    committed, anew = (
        [(part.split("\n")[0], re.findall(r"\| \*\*(.+)\*\* \|$", part, re.M))
         for part in page.split("\n### ")[1:]]
        for page in ((FIGURES / "README.md").read_text(), gallery.page(experiments(), FIGURES))
    )  # fmt: skip
    assert committed == anew


def test_links_lead_to_headings_and_files():
    page = (FIGURES / "README.md").read_text()
    headings = {line.lstrip("# ").lower() for line in page.splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(([^)]+)\)", page):
        there = target[1:] in headings if target.startswith("#") else (FIGURES / target).exists()
        assert there, target


# --- commands -------------------------------------------------------------------------------------


def test_a_figure_is_drawn_again_without_computing(folder, monkeypatch, capsys):
    monkeypatch.setattr(dong_cubic_law, "compute", None)
    command = ["draw", NAME, "--out", str(folder), "--format", "svg,pdf", "--width", "column"]
    assert main([*command, "--no-title"]) == 0
    assert "reproduced" in capsys.readouterr().out
    drawn = (folder / f"{NAME}.svg").read_text()
    assert 'width="252pt"' in drawn
    assert "triples" not in drawn
    assert (folder / f"{NAME}.pdf").exists()
    assert main(["draw", NAME, "--out", str(folder), "--format", "svg"]) == 0
    assert "triples" in (folder / f"{NAME}.svg").read_text()


def test_a_drawn_claim_that_fails_is_told_by_the_status(folder):
    change(folder, exponent=np.array([2.0, 2.0, 2.0]))
    assert main(["draw", NAME, "--out", str(folder)]) == 1


def test_data_that_are_not_there_are_named(tmp_path, capsys):
    assert main(["draw", NAME, "--out", str(tmp_path)]) == 2
    assert f"{NAME}.npz is not there" in capsys.readouterr().err


def test_an_unknown_format_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["draw", "--format", "png,jpg"])
    assert stop.value.code == 2
    assert "unknown format 'jpg'; known are png, svg, pdf" in capsys.readouterr().err


def test_report_writes_the_page(folder, capsys):
    assert main(["report", "--out", str(folder)]) == 0
    assert (folder / "README.md").read_text() == gallery.page(experiments(), folder)


def test_done_is_what_has_these_settings_and_this_seed(folder):
    assert is_done(NAME, dong_cubic_law, "smoke", 0, folder)
    assert not is_done(NAME, dong_cubic_law, "smoke", 1, folder)
    assert not is_done(NAME, dong_cubic_law, "default", 0, folder)
    other = SimpleNamespace(SETTINGS={"smoke": dong_cubic_law.SETTINGS["smoke"] | {"depth": 11}})
    assert not is_done(NAME, other, "smoke", 0, folder)
    (folder / f"{NAME}.npz").unlink()
    assert not is_done(NAME, dong_cubic_law, "smoke", 0, folder)


def test_all_runs_what_is_missing(folder, capfd):
    command = ["all", NAME, "two_token_arcs", "--settings", "smoke", "--out", str(folder)]
    before = (folder / f"{NAME}.json").stat().st_mtime_ns
    assert main(command) == 0
    assert (folder / "two_token_arcs.png").exists()
    assert (folder / f"{NAME}.json").stat().st_mtime_ns == before
    said = capfd.readouterr()
    assert f"1 of 2 have results in {folder}" in said.out
    assert "[1 of 1, 100% of the work" in said.err
    assert main(command) == 0
    assert "2 of 2 have results" in capfd.readouterr().out


def test_all_says_which_broke_off(folder, capfd, monkeypatch):
    monkeypatch.setattr("experiments.everything._run", lambda name, options: (2, "no\n"))
    command = ["all", "two_token_arcs", "--settings", "smoke", "--out", str(folder)]
    assert main(command) == 1
    assert "without results: two_token_arcs" in capfd.readouterr().err
