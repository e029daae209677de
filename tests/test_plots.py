import numpy as np
import pytest

import dynsim
from dynsim import masks, plots, simulate, tokens, weights
from dynsim.collapse.verdicts import groups


def run(mask, depth=12, **record):
    dynamics = dynsim.AttentionDynamics(mask, weights.Identity())
    x0 = tokens.gaussian(3, dynamics.n_tokens, 4)
    return simulate(dynamics, x0, depth, record=dynsim.Record(**record))


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_figures_are_written_in_every_format(tmp_path, suffix):
    figure = plots.rank_trajectory({"": run(masks.causal(6))}, title="one run")
    plots.save(figure, tmp_path / f"f.{suffix}")
    assert (tmp_path / f"f.{suffix}").stat().st_size > 5000


def text_of(figure):
    """Everything that is written in a figure."""
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]


def lines_of(axes):
    """Lines by their labels, which say measure and group."""
    return {line.get_label(): line for line in axes.get_lines() if line.get_label()[0] != "_"}


def test_one_run_shows_the_median_of_mu_as_a_share_and_the_floor():
    trajectory = run(masks.causal(6), depth=80)
    figure = plots.rank_trajectory({"": trajectory}, "mu halves", subtitle="causal mask")
    axes = figure.axes[0]
    share = np.median(np.log10(trajectory["mu"] / trajectory["frobenius_norm"]), axis=0)
    drawn = lines_of(axes)["log10_mu: to consensus"].get_ydata()
    assert np.allclose(drawn[:20], share[:20])
    words = text_of(figure)
    assert {"to consensus", "to rank one", "mu halves", "causal mask"} <= set(words)
    assert any("float64 floor" in text for text in words)


def test_a_floor_far_below_is_not_drawn():
    assert not any(
        "floor" in text for text in text_of(plots.rank_trajectory({"": run(masks.local(6))}))
    )


def test_samples_that_ended_otherwise_are_lines_of_their_own():
    """WU, section 4.3.1: both tokens of sample 0 stay apart; a band would hide it among 20."""
    w = 2.0
    x0 = np.tile([[0.0, 1.0], [0.6, 0.8]], (20, 1, 1))
    x0[0] = [[0.0, 1.0], [-1 / w, -np.sqrt(1 - 1 / w**2)]]
    network = weights.Weights(weights.Zero(), weights.Jordan(w), shared=True)
    dynamics = dynsim.AttentionDynamics(masks.causal(2), network, dynsim.norms.Unit())
    trajectory = simulate(dynamics, x0, 200, engine="logscale")
    parts = [plots.Group(one.kind, which) for one, which in groups(trajectory)]
    assert [int(part.samples.sum()) for part in parts] == [19, 1]
    figure = plots.rank_trajectory({"": trajectory}, groups={"": parts})
    lines = lines_of(figure.axes[0])
    for kind, samples in (("collapsed", slice(1, None)), ("staying", slice(0, 1))):
        (line,) = (lines[name] for name in lines if name.endswith(f"of 20 {kind}") and "mu" in name)
        mu = trajectory["log10_mu"][samples] - np.log10(trajectory["frobenius_norm"][samples])
        assert np.allclose(line.get_ydata()[:50], np.median(mu, axis=0)[:50])
    named = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert named["1 of 20 staying"] != named["19 of 20 collapsed"]
    thin = [paths for axes in figure.axes[:1] for paths in axes.collections]
    assert sum(len(paths.get_segments()) for paths in thin) == 19  # the one is its own median


def test_compared_runs_have_colours_and_names_of_their_own():
    runs = {name: run(masks.MASKS[name](6)) for name in ("complete", "causal", "local")}
    figure = plots.rank_trajectory(runs)
    lines = lines_of(figure.axes[1])
    assert len({line.get_color() for line in lines.values()}) == 3
    written = {text.get_text().split(" ")[0]: text for text in figure.axes[0].texts}
    for name in runs:
        assert written[name].get_color() == lines[f"stable_rank: {name}"].get_color()


@pytest.mark.parametrize("number", [1, 3, 12, 60])
def test_names_of_lines_do_not_overlap(number):
    runs = {f"run {k}": run(masks.local(6), depth=6) for k in range(number)}
    figure = plots.rank_trajectory(runs, "The title")
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    boxes += [axes.title.get_window_extent() for axes in figure.axes]
    assert len(boxes) > 3
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
        assert box.x1 < figure.bbox.x1


@pytest.mark.parametrize("length", [10, 60, 118, 400])
def test_a_title_fits_and_is_one_line_where_it_can_be(length):
    words = "mu stays at 0.61–0.99 of ||X|| " * 20
    figure = plots.rank_trajectory(
        {"": run(masks.local(6))}, words[:length], subtitle=words[:length]
    )
    title, subtitle = figure.texts
    assert title.get_text().count("\n") == 0 or length == 400
    figure.canvas.draw()
    head = [title.get_window_extent(), subtitle.get_window_extent()]
    assert not head[0].overlaps(head[1])
    for box in head:
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(axes.title.get_window_extent()) for axes in figure.axes)


def test_bounds_are_named_in_the_panel_and_told_apart():
    theory = {"bound: one": np.linspace(0, -0.2, 13), "bound: two": np.linspace(0, -0.1, 13),
              "predicted slope": np.linspace(0, -0.4, 13), "beyond": np.full(13, 3.0)}  # fmt: skip
    figure = plots.rank_trajectory({"": run(masks.local(6))}, theory=theory)
    lines = lines_of(figure.axes[0])
    looks = {(str(lines[name]._unscaled_dash_pattern), lines[name].get_color()) for name in theory}
    assert len(looks) == 3  # what is predicted looks alike
    assert {*list(theory)[:3], "beyond ↑"} <= set(text_of(figure))


def test_layers_that_change_nothing_are_left_out():
    trajectory = run(masks.complete(6), depth=200)
    figure = plots.rank_trajectory({"": trajectory})
    assert figure.axes[0].get_xlim()[1] < 60
    assert "the run has 200" in figure.axes[0].get_xlabel()
    slow = plots.rank_trajectory({"": run(masks.local(30), depth=60)}).axes[0]
    assert slow.get_xlim()[1] == 60


def test_a_small_change_looks_small():
    """Where nothing collapses the axis goes from consensus, 0, to 1."""
    trajectory = run(masks.local(6), depth=1)
    axes = plots.rank_trajectory({"": trajectory}).axes[0]
    assert axes.get_ylim()[0] == 0
    share = np.median(trajectory["mu"] / trajectory["frobenius_norm"], axis=0)
    assert np.allclose(lines_of(axes)["log10_mu: to consensus"].get_ydata(), share)


def test_missing_measures_leave_a_panel_empty():
    figure = plots.rank_trajectory({"": run(masks.local(6), measures=())})
    assert len(figure.axes[1].get_lines()) == 0


def test_an_exact_zero_is_drawn_at_the_lower_edge():
    dynamics = dynsim.AttentionDynamics(masks.complete(4), weights.Identity())
    trajectory = simulate(dynamics, np.ones((4, 2)), 3)
    assert not trajectory["mu"].any()
    axes = plots.rank_trajectory({"": trajectory}).axes[0]
    zeros, _ = (line for line in axes.get_lines() if line.get_label() == "_rounding")
    assert np.isfinite(zeros.get_ydata()).all()
    assert axes.get_ylim()[0] == pytest.approx(zeros.get_ydata()[0])


@pytest.mark.parametrize("engine", ["numba", "logscale"])
def test_lines_are_dotted_where_they_are_rounding(engine):
    weights_ = weights.Weights(weights.Zero(), weights.Identity(), shared=True)
    dynamics = dynsim.AttentionDynamics(masks.causal(6), weights_)
    trajectory = simulate(dynamics, tokens.gaussian(3, 6, 4), 90, engine=engine)
    lines = lines_of(plots.rank_trajectory({"": trajectory}).axes[0])
    for name in ("log10_mu", "rank_one_distance"):
        drawn = np.isfinite(lines[f"{name}: to consensus"].get_ydata())
        depths = trajectory.recorded(name)[0]
        within = trajectory.within_rounding(name).mean(axis=0)[depths] > 0.5
        assert np.array_equal(drawn, ~within)
        assert within[-1] == (engine == "numba" or name != "log10_mu")
