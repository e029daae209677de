"""Figures: what a reader would complain about is found, and found to be absent."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from pictures import problems

from dynsim import masks, norms, plots, tokens, weights
from dynsim.equilibria import (
    basins,
    continuation,
    find_equilibria,
    hyperbolic_dynamics,
    hyperbolic_pair,
    jordan_dynamics,
    lyapunov,
)
from dynsim.geometry import survey
from dynsim.results import style
from experiments import experiments, extras
from experiments.benchmarks import report as benchmarks
from experiments.record import judged, read_data

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "figures"
RECORDED = [name for name in experiments() if (FIGURES / f"{name}.npz").exists()]


def complaints(draw, width="page"):
    with style.context():
        return problems(style.fit(draw(), width))


# --- the complaints can be made -------------------------------------------------------------------


def panel():
    figure, ((axes,),) = style.panels(1, 1)
    return figure, axes


def test_nothing_is_wrong_with_a_good_figure():
    def draw():
        figure, axes = panel()
        named = {"up": axes.plot([0, 1], [0, 1])[0], "down": axes.plot([0, 1], [1, 0], "--")[0]}
        axes.set(xlabel="x", ylabel="y", title="lines")
        style.name_lines(axes, named)
        style.finding(figure, "Two lines cross, " + "which everyone can see, " * 9)
        return figure

    assert complaints(draw) == []


def test_overlapping_texts_are_found():
    def draw():
        figure, axes = panel()
        axes.text(0.5, 0.5, "here"), axes.text(0.51, 0.51, "there")
        return figure

    assert complaints(draw) == ["'here' overlaps 'there'"]


def test_text_beyond_the_edge_is_found():
    def draw():
        figure, _ = panel()
        figure.text(0.9, 0.5, "a sentence that is far too long for the place")
        return figure

    (complaint,) = complaints(draw)
    assert "leaves the figure" in complaint


@pytest.mark.parametrize("kind", ["line", "marks", "bar"])
def test_a_legend_over_data_is_found(kind):
    def draw():
        figure, axes = panel()
        if kind == "line":
            axes.plot([0, 1], [0.5, 0.5], label="flat")
        elif kind == "marks":
            axes.scatter(*np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 40)), label="dots")
        else:
            axes.bar([0, 1], [1, 1], width=1, label="bars")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="center")
        return figure

    (complaint,) = complaints(draw)
    assert "lies over data" in complaint


def test_a_legend_beside_data_is_no_fault():
    def draw():
        figure, axes = panel()
        axes.plot([0, 1], [0.1, 0.1], label="flat")
        axes.set(ylim=(0, 1))
        axes.legend(loc="upper right")
        return figure

    assert complaints(draw) == []


def test_a_look_that_is_used_twice_is_found():
    def draw(**look):
        figure, axes = panel()
        axes.plot([0, 1], [0, 1], color="black", linestyle="--", label="one")
        axes.plot([0, 1], [1, 2], color="black", linestyle="--", label="two", **look)
        return figure

    assert complaints(draw) == ["one, two look alike"]
    assert complaints(lambda: draw(marker="o")) == []


# --- experiments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", experiments())
def test_a_figure_of_smoke_data_reads_well(name, smoke):
    data = smoke(name).data
    assert complaints(lambda: experiments()[name].draw(data)) == []


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_figure_is_drawn_from_its_data_and_judged_alike(name):
    experiment, data = experiments()[name], read_data(FIGURES, name)
    assert complaints(lambda: experiment.draw(data)) == []
    sidecar = json.loads((FIGURES / f"{name}.json").read_text())
    recorded = sidecar["verdicts"] if "verdicts" in sidecar else [sidecar["verdict"]]
    kinds = ("reproduced", "only_with", "lacking")
    anew = [{kind: getattr(v, kind) for kind in kinds} for v in judged(experiment, data)]
    assert anew == [{kind: verdict.get(kind, "") for kind in kinds} for verdict in recorded]
    assert (FIGURES / f"{name}.png").exists()


def test_every_experiment_is_recorded():
    assert set(RECORDED) == set(experiments())


def test_the_benchmarks_figure_is_drawn_from_its_data():
    found = json.loads((FIGURES / "benchmarks.json").read_text())
    assert complaints(lambda: benchmarks.draw(found)) == []


def test_extras_are_those_of_the_package():
    known = {"torch", "minilm", "models", "theory", "scale", "certify"}
    assert all(set(extras(experiment)) <= known for experiment in experiments().values())


# --- figures of the command line ------------------------------------------------------------------


def causal(n, w=2.0):
    from dynsim import AttentionDynamics

    return AttentionDynamics(masks.causal(n), weights.Jordan(w), norms.Unit())


def some_basins():
    return plots.basins(basins.basins(causal(2), 200, dim=2), "where starts end")


def some_equilibria():
    search = find_equilibria(jordan_dynamics(3, 3.5), starts=8, basin_samples=0)
    return plots.equilibria(search, "equilibria of every rank")


def some_branches():
    branch = continuation.continue_equilibrium(
        lambda c: hyperbolic_dynamics(0.5, c), hyperbolic_pair(0.5, 1.0)[0], 1.0, 0.8
    )
    return plots.branches([branch], "c", "a fold")


def some_exponents(n=6):
    from dynsim import AttentionDynamics

    dynamics = AttentionDynamics(
        masks.complete(n), weights.Weights(weights.Gaussian(), shared=True), norms.Unit()
    )
    result = lyapunov.spectrum(dynamics, tokens.sphere(1, n, n, 0)[0], layers=100)
    return plots.lyapunov(result, "exponents")


def some_geometry():
    x = tokens.gaussian(samples=1, n=50, d=4)[0]
    layer_norms = [norms.LayerNorm(gain=[1, 2, 3, k]) for k in range(4, 9)]
    surveys = [survey(f"layer {k}", norm, x) for k, norm in enumerate(layer_norms)]
    return plots.geometry(surveys, "LayerNorms")


def some_run():
    from dynsim import AttentionDynamics, simulate

    dynamics = AttentionDynamics(masks.local(8), weights.Gaussian(), norms.Unit())
    run = simulate(dynamics, tokens.gaussian(4, 8, 4), 20)
    return plots.rank_trajectory({"": run}, "what became of four samples, in a few words")


def some_diagrams():
    from dynsim.sweeps.diagrams import Diagram, draw

    values = np.arange(12.0).reshape(3, 4)
    found = [Diagram(name, [1, 2, 3, 4], [1, 2, 3], values, None, 1, None) for name in "ab"]
    return draw(found, "window", "beta", "mu", "two masks")


DRAWN = (
    some_basins,
    some_equilibria,
    some_branches,
    some_exponents,
    some_geometry,
    some_run,
    some_diagrams,
)


@pytest.mark.parametrize("width", style.WIDTHS)
@pytest.mark.parametrize("draw", DRAWN)
def test_figures_of_commands_read_well(draw, width):
    assert complaints(draw, width) == []


def test_many_exponents_are_not_drawn_as_as_many_lines():
    figure = some_exponents(12)
    assert len(figure.axes[1].collections[0].get_offsets()) == 11  # the others are annihilated
    assert len(figure.axes[0].get_lines()) <= 7


# --- style ----------------------------------------------------------------------------------------


def test_colours_of_masks_and_norms_mean_one_thing():
    assert not set(style.MASKS.values()) & set(style.NORMS.values())
    assert len(set(style.MASKS.values())) == len(style.MASKS)


def test_text_stays_text(tmp_path):
    figure, axes = panel()
    axes.set_title("some words")
    for suffix in ("svg", "pdf"):
        plots.save(figure, tmp_path / f"f.{suffix}")
    assert ">some words</text>" in (tmp_path / "f.svg").read_text()
    assert b"/FontFile2" in (tmp_path / "f.pdf").read_bytes()  # TrueType, which editors keep


def test_a_figure_is_fit_to_a_column_and_loses_its_title():
    with style.context():
        figure, axes = style.panels(1, 3)
        style.finding(figure, "what is found, " * 9)
    style.fit(figure, "column", title=False)
    assert figure.get_figwidth() == style.COLUMN
    assert figure.get_suptitle().strip() == ""
    assert [a.get_subplotspec().get_topmost_subplotspec().rowspan.start for a in axes[0]] == [
        0, 1, 2
    ]  # fmt: skip
    bare = style.fit(some_run(), "page", title=False)
    assert not any(text.get_visible() for text in bare.texts)
    with pytest.raises(ValueError, match="unknown width 'wide'; known are column, page"):
        style.fit(Figure(), "wide")
