import numpy as np
import pytest

import dynsim
from dynsim import masks, plots, simulate, tokens, weights


def run(mask, depth=12, **record):
    dynamics = dynsim.AttentionDynamics(mask, weights.Identity())
    return simulate(dynamics, tokens.gaussian(3, 6, 4), depth, record=dynsim.Record(**record))


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_figures_are_written_in_every_format(tmp_path, suffix):
    figure = plots.rank_trajectory({"": run(masks.causal(6))}, title="one run")
    plots.save(figure, tmp_path / f"f.{suffix}")
    assert (tmp_path / f"f.{suffix}").stat().st_size > 5000


def test_one_run_shows_mu_with_its_median_and_the_floor():
    trajectory = run(masks.causal(6), depth=80)
    axes = plots.rank_trajectory({"": trajectory}).axes[0]
    (line,) = (line for line in axes.get_lines() if line.get_label() == "mu")
    assert np.allclose(line.get_ydata()[:20], np.log10(np.median(trajectory["mu"], axis=0))[:20])
    assert any("floor" in text for text in axes.get_legend_handles_labels()[1])


def test_the_figure_says_what_its_lines_are():
    def words(trajectory):
        return [text.get_text() for text in plots.rank_trajectory({"": trajectory}).axes[2].texts]

    assert any("medians, bands: 16–84%" in text for text in words(run(masks.local(6))))
    dynamics = dynsim.AttentionDynamics(masks.local(6), weights.Identity())
    assert not any("medians" in text for text in words(simulate(dynamics, np.eye(6), 5)))


def test_a_floor_far_below_is_named_instead_of_drawn():
    texts = [t.get_text() for t in plots.rank_trajectory({"": run(masks.local(6))}).axes[0].texts]
    assert any("floor" in text for text in texts)


def test_compared_runs_differ_in_colour_dash_and_marker():
    runs = {name: run(masks.MASKS[name](6)) for name in ("complete", "causal", "local")}
    figure = plots.rank_trajectory(runs)
    lines = [line for line in figure.axes[1].get_lines() if not line.get_label().startswith("_")]
    shown = {
        (ln.get_color(), ln.get_linestyle(), ln.get_marker()) for ln in lines if ln.get_label()
    }
    assert len(shown) == 3
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(runs)


def test_missing_measures_leave_a_panel_empty():
    figure = plots.rank_trajectory({"": run(masks.local(6), measures=())})
    assert len(figure.axes[1].get_lines()) == 0


def test_an_exact_zero_is_drawn_at_the_lower_edge():
    dynamics = dynsim.AttentionDynamics(masks.complete(4), weights.Identity())
    trajectory = simulate(dynamics, np.ones((4, 2)), 3)
    assert not trajectory["mu"].any()
    axes = plots.rank_trajectory({"": trajectory}).axes[0]
    assert np.isfinite(axes.get_lines()[0].get_ydata()).all()
    assert axes.get_ylim()[0] == pytest.approx(axes.get_lines()[0].get_ydata()[0])


@pytest.mark.parametrize("engine", ["numba", "logscale"])
def test_lines_are_thin_where_they_are_rounding(engine):
    weights_ = weights.Weights(weights.Zero(), weights.Identity(), shared=True)
    dynamics = dynsim.AttentionDynamics(masks.causal(6), weights_)
    trajectory = simulate(dynamics, tokens.gaussian(3, 6, 4), 90, engine=engine)
    figure = plots.rank_trajectory({"": trajectory})
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    for name, label in [("mu", "mu"), ("rank_one_distance", "distance to rank one")]:
        drawn = np.isfinite(lines[label].get_ydata())
        depths = trajectory.recorded(name)[0]
        within = trajectory.within_rounding(name).mean(axis=0)[depths] > 0.5
        assert np.array_equal(drawn, ~within)
        assert within[-1] == (engine == "numba" or name != "mu")
    notes = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert all("thin: within rounding" in text for (text,) in notes)
