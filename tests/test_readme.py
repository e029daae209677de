"""The README is true: its Python runs, its commands parse, its files exist."""

import re
import shlex
from pathlib import Path

import pytest

from dynsim.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


#: Options that keep each command short.
SHORTER = {
    "run": ["--samples", "2", "--depth", "6"],
    "equilibria": ["--starts", "50"],
    "geometry": [],
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [line for code in blocks("sh") for line in code.splitlines() if line.startswith("python -m")],
)
def test_commands_run(line, tmp_path, monkeypatch, capsys):
    _, _, module, *words = shlex.split(line)
    command = module.removeprefix("dynsim.")
    words = [str(ROOT / word) if (ROOT / word).is_file() else word for word in words]
    monkeypatch.chdir(tmp_path)
    assert main([command, *words, *SHORTER[command], "--no-figure"]) == 0


def test_the_two_commands_are_there_once():
    assert (
        README.count("pip install -e . && python -m dynsim.run --mask local --ln on --depth 200")
        == 1
    )
    assert README.count('pip install -e ".[test]" && python -m pytest') == 1


def test_named_files_and_pictures_exist():
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    assert linked
    for name in [*linked, "tests/naive.py", ".ci/run", "CHANGELOG.md", "LICENSE"]:
        assert (ROOT / name).exists(), name
    table = README.split("## The folders")[1].split("## ")[0]
    for name in re.findall(r"`([a-z_]+(?:/[a-z_]*)?(?:\.py)?/?)`", table):
        if "/" in name or name.endswith(".py"):
            assert any((ROOT / room / name).exists() for room in ("", "dynsim", "tests")), name


def test_the_readmes_numbers_are_those_of_the_committed_run():
    import json

    found = json.loads((ROOT / "figures" / "main_job.json").read_text())
    assert found["verdict"]["sentence"] in " ".join(README.split())
    assert f"{found['mask']['lambda_2']:.8f}" in README
    assert f"{found['measures']['mu']['median'][-1]:.4g}" in README
