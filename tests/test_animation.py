"""Moving pictures: as many frames as layers, tokens where they are, refusals before the work."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynsim import AttentionDynamics, masks, norms, simulate, tokens, weights
from dynsim.cli.main import main
from dynsim.equilibria import jordan_dynamics
from dynsim.equilibria.basins import circle_pairs
from dynsim.reports import animation

SMALL = ["--tokens", "4", "--samples", "2", "--depth", "3", "--no-figure", "--dim"]


def frames_of(path):
    with Image.open(path) as image:
        pictures, durations = [], []
        for k in range(image.n_frames):
            image.seek(k)
            pictures.append(np.asarray(image.convert("RGB"), int))
            durations.append(image.info["duration"])
    return pictures, durations


@pytest.mark.parametrize("dim", ["2", "3", "5"])
def test_a_run_has_a_frame_for_each_layer(tmp_path, capsys, dim):
    path = tmp_path / "new" / "run.gif"
    words = [*SMALL, dim, "--ln", "on", "--out", str(tmp_path), "--animate", str(path)]
    assert main(["run", *words]) == 0
    assert "run.gif" in capsys.readouterr().out
    pictures, durations = frames_of(path)
    assert len(pictures) == 4
    assert durations[-1] > 5 * durations[0]  # the last one stays
    assert all((a != b).any() for a, b in pairwise(pictures))


def test_compared_runs_stand_side_by_side(tmp_path):
    one, three = tmp_path / "one.gif", tmp_path / "three.gif"
    words = [*SMALL, "2", "--out", str(tmp_path), "--animate"]
    assert main(["run", *words, str(one)]) == 0
    assert main(["run", "--compare", "mask=complete,causal,local", *words, str(three)]) == 0
    assert frames_of(three)[0][0].shape[1] == 3 * frames_of(one)[0][0].shape[1]


def test_long_runs_show_a_hundred_layers(tmp_path):
    path = tmp_path / "long.gif"
    words = ["--tokens", "3", "--dim", "2", "--samples", "1", "--depth", "1000", "--no-figure"]
    words += ["--mask", "local", "--ln", "on", "--value", "orthogonal", "--measures", ""]
    shown = []

    class Counted(animation.Animation):
        def save(self, path):
            shown.append(self.frames)
            return Path(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(animation, "Animation", Counted)
        assert main(["run", *words, "--out", str(tmp_path), "--animate", str(path)]) == 0
    assert shown == [100]


def test_tokens_are_drawn_where_they_are():
    layer = AttentionDynamics(masks.causal(5), weights.Identity(), norms.Unit())
    x0 = tokens.gaussian(1, 5, 2)
    states = np.stack([simulate(layer, x0, t).final[0] if t else x0[0] for t in range(4)])
    moving = animation.tokens([animation.Moving("", range(4), states, np.ones(4))])
    moving.draw(2)
    (dots,) = (c for c in moving.figure.axes[0].collections if len(c.get_offsets()) == 5)
    assert np.allclose(dots.get_offsets(), states[2])  # on the circle
    moving.draw(0)
    on_circle = x0[0] / np.linalg.norm(x0[0], axis=1, keepdims=True)
    assert np.allclose(dots.get_offsets(), on_circle)


@pytest.mark.parametrize(
    ("sizes", "words", "largest"),
    [
        ([1.0, 0.5, 0.2], "", [1.0, 0.5, 0.2]),
        ([1.0, 0.1, 1e-9], "each layer by its largest token", [1.0, 1.0, 1.0]),
        ([1e300, 1.0, 0.0], "each layer by its largest token", [1.0, 1.0, 0.0]),
    ],
)
def test_tokens_without_a_norm_keep_their_places(sizes, words, largest):
    shape = np.array([[0.6, 0.8], [0.1, 0.2]])
    points, said = animation._scaled(np.array(sizes)[:, None, None] * shape)
    assert said == words
    assert np.allclose(np.linalg.norm(points, axis=-1).max(axis=1), largest)


def test_a_basin_is_drawn_by_pairs_of_angles(tmp_path):
    path = tmp_path / "basin.gif"
    words = ["--mask", "causal", "--value", "jordan:2", "--tokens", "2", "--starts", "50"]
    words += ["--no-figure", "--out", str(tmp_path), "--animate", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynsim.cli.basins._LAYERS", 3)
        assert main(["basins", *words]) == 0
    assert len(frames_of(path)[0]) == 4
    run = simulate(jordan_dynamics(2, 2.0), circle_pairs(8), 50)
    cosines = run["mean_cosine"].T.reshape(-1, 8, 8)
    x = circle_pairs(8)
    assert cosines[0, 3, 5] == pytest.approx(x[3 * 8 + 5, 0] @ x[3 * 8 + 5, 1])
    moving = animation.basin(cosines, range(51), "pairs")
    moving.draw(50)
    title = moving.figure.axes[0].get_title()
    share = np.mean(np.linalg.matrix_rank(run.final, tol=1e-3) == 1)
    assert f"{share:.1%} at rank one" in title


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
def test_mp4(tmp_path):
    path = tmp_path / "run.mp4"
    assert main(["run", *SMALL, "2", "--out", str(tmp_path), "--animate", str(path)]) == 0
    assert path.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["run", "--animate", "x.avi"], "unknown kind of animation '.avi'"),
        (["run", "--animate", "folder.gif"], "--animate folder.gif is a folder"),
        (["run", "--animate", "x.mp4"], "x.mp4: .mp4 needs the program ffmpeg"),
        (["run", "--compare", "window=1..5", "--mask", "local", "--animate", "x.gif"], "got 5"),
        (["basins", "--tokens", "3", "--animate", "x.gif"], "two tokens of dimension 2; got 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_work(
    tmp_path, monkeypatch, capsys, words, error
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.animation.FFMpegWriter.isAvailable", lambda: False)
    Path("folder.gif").mkdir()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert error in err
    assert not list(Path().glob("results/*"))


def test_the_readmes_picture_is_small():
    picture = Path(__file__).parent.parent / "figures" / "collapse.gif"
    assert picture.stat().st_size < 2_000_000
    assert len(frames_of(picture)[0]) == 61
