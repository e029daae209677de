"""The READMEs are true: their Python runs, their commands parse, their files exist."""

import json
import re
import shlex
from pathlib import Path

import checkpoints
import pytest

from dynsim.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", *(f"{room}/README.md" for room in ("dynsim", "theory", "experiments"))]


#: Options that keep each command short.
SHORTER = {
    "run": ["--samples", "2", "--depth", "6"],
    "equilibria": ["--starts", "50"],
    "geometry": [],
    "probe": ["--samples", "1", "--tokens", "16"],
}


def blocks(language):
    pages = ((ROOT / page).read_text() for page in PAGES)
    return [code for page in pages for code in re.findall(rf"```{language}\n(.*?)```", page, re.S)]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def share_smollm2(monkeypatch):
    """The command opens the SmolLM2 that other tests have read already."""
    pytest.importorskip("transformers")
    checkpoints.require_smollm2()
    from dynsim.models import sources

    opened, smollm2 = sources.open_source, checkpoints.smollm2()

    def open_source(name, *options):
        return smollm2 if name == "smollm2" else opened(name, *options)

    monkeypatch.setattr(sources, "open_source", open_source)


@pytest.mark.parametrize(
    "line",
    [line for code in blocks("sh") for line in code.splitlines() if line.startswith("python -m")],
)
def test_commands_run(line, tmp_path, monkeypatch, capsys):
    _, _, module, *words = shlex.split(line)
    command = words.pop(0) if module == "dynsim" else module.removeprefix("dynsim.")
    if "smollm2" in words:
        share_smollm2(monkeypatch)
    words = [str(ROOT / word) if (ROOT / word).is_file() else word for word in words]
    monkeypatch.chdir(tmp_path)
    assert main([command, *words, *SHORTER[command], "--no-figure"]) == 0


def test_the_two_commands_are_there_once():
    assert (
        README.count("pip install -e . && python -m dynsim.run --mask local --ln on --depth 200")
        == 1
    )
    assert README.count('pip install -e ".[test]" && python -m pytest') == 1


@pytest.mark.parametrize("page", PAGES)
def test_named_files_and_pictures_exist(page):
    text = (ROOT / page).read_text()
    linked = [name for name in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if ":" not in name]
    assert linked or page not in ("README.md", "experiments/README.md")
    for name in linked:
        assert ((ROOT / page).parent / name).exists(), name
    for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:/|\.py))`", text):
        rooms = ((ROOT / page).parent, ROOT, ROOT / "dynsim", ROOT / "tests")
        assert any((room / name).exists() for room in rooms) or name == "results/", name


def test_readme_is_short():
    assert len(README.splitlines()) < 200


@pytest.mark.parametrize("name", ["main_job", "compare_masks"])
def test_the_readmes_sentences_are_those_of_the_committed_runs(name):
    found = json.loads((ROOT / "figures" / f"{name}.json").read_text())
    for run in found.get("runs", {"": found}).values():
        assert run["verdict"]["sentence"] in " ".join(README.split())


def test_the_readmes_counts_are_those_of_the_committed_storms():
    storms = json.loads((ROOT / "figures" / "soundness.json").read_text())["storms"]
    assert f"{sum(storm['systems'] for storm in storms.values()):,} systems" in README
    assert sum(storm["violated"] for storm in storms.values()) == 0
    for name in ("bounds", "log_scale"):
        assert f"{storms[name]['holds']:,}" in README
        assert f"{storms[name]['flagged']:,}" in README
