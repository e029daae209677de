"""What is computed from a theory of plain attention: right for new parts, or refused by name."""

from dataclasses import replace

import numpy as np
import pytest

import dynsim
from dynsim import AttentionDynamics, masks, norms, tokens
from dynsim.collapse.bounds import mu_bounds
from dynsim.collapse.comparison import compare_with_theory
from dynsim.collapse.gram import infinite_width
from dynsim.collapse.predictions import cubic_step, predict, transversal_growth
from dynsim.engines import preferred
from dynsim.equilibria import find_equilibria
from dynsim.equilibria.certify import certify
from dynsim.equilibria.continuation import FAMILIES
from dynsim.equilibria.lyapunov import spectrum, transversal
from dynsim.equilibria.search import symmetries
from dynsim.equilibria.stability import stability
from dynsim.network.attention import (
    ATTENTION,
    QK_NORMS,
    Hardmax,
    NoQKNorm,
    QKNorm,
    Sigmoid,
    Softmax,
    Softpick,
)
from dynsim.network.parts import ATTENTION_PARTS, PLAIN, check_plain, unusual_parts
from dynsim.network.positions import POSITIONS, ALiBi, Decay, NoPosition, RoPE
from dynsim.network.schedules import SCHEDULES, Linear, Listed
from dynsim.network.weights import (
    Fixed,
    Gaussian,
    Identity,
    Jordan,
    Layers,
    LayerWeights,
    Orthogonal,
    Sharpened,
    Weights,
    Zero,
)
from dynsim.results.definition import Definition

PLAIN_LAYER = AttentionDynamics(
    masks.causal(4), Weights(value=Orthogonal(), shared=True), norms.Unit()
)
FRESH = replace(PLAIN_LAYER, weights=Weights())
PARTS = {
    "position": RoPE(), "alibi": ALiBi(0.5), "kind": Softmax(0.3), "sigmoid": Sigmoid(),
    "qk_norm": QKNorm(2.0),
}  # fmt: skip
X = tokens.sphere(2, 4, 4)


def with_part(dynamics, name):
    field = {"alibi": "position", "sigmoid": "kind"}.get(name, name)
    return replace(dynamics, **{field: PARTS[name]}), field


#: What is computed of a dynamics, and the parts that it knows.
PURPOSES = {
    "a late rate": (lambda d: predict(d, X), {"qk_norm"}),
    "the growth of deviations": (lambda d: transversal_growth(d, X[0, 0], 3), {"qk_norm"}),
    "the cubic law": (lambda d: cubic_step(d, X[0], X[0, 0]), set()),
    "a proved bound": (lambda d: mu_bounds(d, X, 2), set()),
    "infinite width": (lambda d: infinite_width(replace(d, weights=Weights()), X, 2), set()),
    "a certificate of an equilibrium": (lambda d: certify(d, X[0]), set()),
    "the transversal exponent": (lambda d: transversal(d, X[0, 0], layers=20), {"qk_norm"}),
    "beta as a parameter": (
        lambda d: FAMILIES["beta"](d, 4, 2.0), {"position", "alibi", "kind", "sigmoid"}
    ),
    "Lyapunov exponents": (lambda d: spectrum(d, X[0], layers=5, discard=2, count=2), set(PARTS)),
    "an equilibrium": (lambda d: stability(d, X[0]), set(PARTS)),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_theory_knows_a_part_or_names_it(purpose, part):
    compute, known = PURPOSES[purpose]
    dynamics, field = with_part(PLAIN_LAYER, part)
    if purpose == "the cubic law":
        dynamics = replace(dynamics, mask=masks.complete(4))
    if part in known:
        compute(dynamics)
        return
    with pytest.raises(ValueError, match=rf"^{purpose}: not known with {field}=") as error:
        compute(dynamics)
    default = getattr(PLAIN_LAYER, field)
    assert str(error.value).endswith(f"leave it out, {field}={default!r}")


@pytest.mark.parametrize("compute", [
    lambda d: dynsim.jacobian.jacobian(d, X[0]), lambda d: spectrum(d, X[0], layers=5),
    lambda d: stability(d, X[0]), lambda d: find_equilibria(d, dim=4, starts=2),
    lambda d: dynsim.basins.limit_sets(d, X),
])  # fmt: skip
def test_a_hardmax_is_refused_where_a_derivative_is_taken(compute):
    with pytest.raises(ValueError, match="not known with kind=Hardmax"):
        compute(replace(PLAIN_LAYER, kind=Hardmax()))


def test_check_plain_allows_fields_and_classes():
    dynamics = replace(PLAIN_LAYER, kind=Softmax(1.0), position=Decay(0.5))
    assert unusual_parts(dynamics) == {"position": Decay(0.5), "kind": Softmax(1.0)}
    check_plain(dynamics, "this", ("position", Softmax))
    with pytest.raises(ValueError, match="this: not known with kind"):
        check_plain(dynamics, "this", ("position",))
    assert set(ATTENTION_PARTS) <= set(PLAIN)
    assert not unusual_parts(PLAIN_LAYER)


# --- where it is right ------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [norms.Unit(), norms.NoNorm()])
def test_late_rates_hold_with_qk_norm(norm):
    value = Orthogonal() if norm == norms.Unit() else Fixed(np.eye(4), 0.9 * np.eye(4))
    base = Weights(value=value, shared=True) if norm == norms.Unit() else Layers((LayerWeights(
        np.eye(4)[None], np.zeros((1, 4)), np.eye(4)[None], np.zeros((1, 0, 0)),
        0.9 * np.eye(4)[None], np.zeros(4)),))  # fmt: skip
    dynamics = AttentionDynamics(masks.causal(6), base, norm, qk_norm=QKNorm(0.5))
    x0 = tokens.sphere(8, 6, 4, seed=3)
    run = dynsim.simulate(dynamics, x0, depth=40)
    late = np.diff(run["log10_mu"][:, 28:36], axis=1).mean()
    assert 10**late == pytest.approx(predict(dynamics, x0).rate, rel=2e-3)
    assert predict(dynamics, x0).lasts


def test_the_kind_of_the_late_law_is_not_claimed_with_qk_norm():
    """The cubic law's coefficient is that of plain scores."""
    flat = replace(PLAIN_LAYER, mask=masks.complete(4))
    assert predict(flat, X).exponent == 3.0
    assert np.isnan(predict(replace(flat, qk_norm=QKNorm(2.0)), X).exponent)


def test_theory_beside_a_run_says_why_there_is_none():
    dynamics = replace(FRESH, position=ALiBi(0.5))
    theory = compare_with_theory(dynamics, X, dynsim.simulate(dynamics, X, depth=6))
    words = str(theory)
    assert "no prediction: a late rate: not known with position=ALiBi(slopes=0.5)" in words
    assert "no bounds: it does not know position=ALiBi(slopes=0.5)" in words
    assert "no infinite-width limit: infinite width: not known with position" in words


def test_equilibria_with_parts_are_those_of_the_definition():
    dynamics = AttentionDynamics(
        masks.causal(3), Layers((LayerWeights(
            2.0 * np.eye(2)[None], np.zeros((1, 2)), np.eye(2)[None], np.zeros((1, 0, 0)),
            np.array([[[1.0, 2.0], [0.0, 1.0]]]), np.zeros(2)),)),
        norms.Unit(), position=RoPE(20.0), kind=Softmax(0.1), qk_norm=QKNorm(1.5),
    )  # fmt: skip
    search = find_equilibria(dynamics, starts=16, basin_samples=0)
    assert len(search.equilibria) > 1
    for one in search.equilibria:
        sign = 1.0 if np.sum(dynamics.step(one.tokens) * one.tokens) > 0 else -1.0
        assert np.allclose(dynamics.step(one.tokens), sign * one.tokens, atol=1e-9)


def test_positions_break_the_symmetries_of_a_mask():
    ring = AttentionDynamics(masks.ring(4), Identity(), norms.Unit())
    assert len(symmetries(ring, 3)[0]) == 8
    assert len(symmetries(replace(ring, position=Decay(0.5)), 3)[0]) == 1


def test_tokens_taken_out_of_a_row_are_refused_with_positions():
    """Strong components {0, 2} and {1, 3}: without those between, distances would change."""
    mask = np.eye(4, dtype=bool)
    mask[[0, 2, 1, 3], [2, 0, 3, 1]] = True
    apart = AttentionDynamics(mask, Identity(), norms.Unit())
    find_equilibria(apart, dim=2, starts=2, basin_samples=0)
    with pytest.raises(ValueError, match="not known with position"):
        find_equilibria(replace(apart, position=Decay(0.5)), dim=2, starts=2, basin_samples=0)


# --- engines --------------------------------------------------------------------------------


def test_the_engine_falls_back_with_the_reason():
    assert preferred(PLAIN_LAYER, np.float64) == ("logscale", None)
    name, reason = preferred(replace(PLAIN_LAYER, position=RoPE()), np.float64)
    assert (name, reason) == ("numba", "it does not know position=RoPE(base=10000.0)")
    name, reason = preferred(replace(PLAIN_LAYER, kind=Sigmoid()), np.float64)
    assert name == "torch"
    assert "the numba engine does not apply either, it does not know kind=Sigmoid()" in reason
    for engine, part in (("numba", {"kind": Hardmax()}), ("logscale", {"position": RoPE()}),
                         ("logscale", {"qk_norm": QKNorm()})):  # fmt: skip
        with pytest.raises(ValueError, match=f"the {engine} engine does not apply: it does not"):
            dynsim.simulate(replace(PLAIN_LAYER, **part), X, 2, engine=engine)


@pytest.mark.parametrize("engine", ["numba", "torch", "reference"])
def test_hidden_dropout_goes_with_every_part(engine):
    dynamics = replace(
        PLAIN_LAYER, skip=1.0, position=RoPE(), kind=Softmax(0.3), qk_norm=QKNorm(2.0),
        dropout=dynsim.Dropout(hidden=0.3),
    )  # fmt: skip
    found = dynsim.simulate(dynamics, X, 3, engine=engine).final
    exact = dynsim.simulate(dynamics, X, 3, engine="reference").final
    assert np.allclose(found, exact, rtol=1e-11, atol=1e-12)


def test_a_query_without_size_is_named():
    nothing = AttentionDynamics(masks.causal(4), Weights(Zero()), qk_norm=QKNorm())
    for engine in ("numba", "torch", "reference"):
        with pytest.raises(dynsim.Overflow, match="sample 0 has no size left for QK-norm"):
            dynsim.simulate(nothing, X, 2, engine=engine)
    assert dynsim.simulate(replace(nothing, qk_norm=QKNorm(eps=0.1)), X, 2).depth == 2


# --- values: files, words, what is refused ------------------------------------------------------

HELD = [
    {"position": ALiBi()}, {"position": ALiBi((0.1, 0.2))}, {"position": RoPE(50.0)},
    {"position": Decay(0.3)}, {"position": POSITIONS["power"](2.0)},
    {"kind": Softmax((0.5, -1.0))}, {"kind": Sigmoid()}, {"kind": Softpick(0.1)},
    {"kind": Hardmax()}, {"qk_norm": QKNorm((1.0, 2.0), "rms", eps=0.1)},
    {"qk_norm": QKNorm(Linear(1.0, 2.0, 5))},
    {"weights": Sharpened(Weights(n_heads=2), Listed((1.0, 2.0, 3.0)))},
]  # fmt: skip


@pytest.mark.parametrize("part", HELD, ids=repr)
def test_parts_are_values_that_files_bring_back(part, tmp_path):
    dynamics = AttentionDynamics(masks.causal(4), **{"weights": Weights(n_heads=2)} | part)
    (value,) = part.values()
    known = vars(dynsim.network.attention) | vars(dynsim.network.positions)
    known = known | vars(dynsim.network.schedules) | vars(dynsim.network.weights)
    assert eval(repr(value), dict(known)) == value
    assert Definition.of(dynamics).dynamics() == dynamics
    assert dynamics != AttentionDynamics(masks.causal(4), Weights(n_heads=2))
    engine = "numba" if isinstance(dynamics.kind, Softmax) else "reference"
    run = dynsim.simulate(dynamics, X, 2, engine=engine)
    again = dynsim.load(run.save(tmp_path / "run.nc"))
    assert again.rebuild_dynamics() == dynamics
    on = dynsim.simulate(again.rebuild_dynamics(), again.state, 1, start=2, engine=engine)
    whole = dynsim.simulate(dynamics, X, 3, engine=engine)
    assert np.array_equal(on.final, whole.final)


def test_what_a_plain_dynamics_is_described_by_has_not_changed():
    fields = {"type", "mask", "weights", "norm", "placement", "skip", "mlp", "mlp_norm"}
    assert set(PLAIN_LAYER.description) == fields
    assert "factored" not in PLAIN_LAYER.description["weights"]


def test_layer_t_alone_has_the_gain_of_layer_t():
    cooled = replace(FRESH, qk_norm=QKNorm(Listed((1.0, 5.0))))
    assert cooled.n_layers == 2
    assert cooled.layer(1, 4).qk_norm == QKNorm(5.0)
    assert np.array_equal(cooled.layer(1, 4).step(X[0]), cooled.step(X[0], 1))
    with pytest.raises(ValueError, match="gains of the QK-norm for 2"):
        replace(cooled, norm=norms.PerLayer((norms.Unit(),) * 3))


def test_weights_keep_factors_where_queries_and_keys_are_needed():
    plain = Weights(seed=4).layer(0, 6)
    held = AttentionDynamics(masks.causal(3), Weights(seed=4), position=RoPE()).weights.layer(0, 6)
    assert held.key.size
    assert np.allclose(held.M, plain.M, rtol=1e-13, atol=1e-15)
    for family in (Identity(), Zero()):
        made = AttentionDynamics(masks.causal(3), Weights(family, Gaussian()), position=RoPE())
        layer = made.weights.layer(0, 6)
        assert np.array_equal(layer.M, Weights(family, Gaussian()).layer(0, 6).M)
        assert layer.key.size


@pytest.mark.parametrize(("make", "words"), [
    (lambda: replace(FRESH, position=3), "a position is an object such as"),
    (lambda: replace(FRESH, kind="softmax"), "a kind of attention is an object such as"),
    (lambda: replace(FRESH, qk_norm=True), "a QK-norm is an object such as"),
    (lambda: replace(FRESH, position=ALiBi((1.0, 2.0))), "got 2 numbers for 1 heads"),
    (lambda: replace(FRESH, kind=Softmax((1.0, 2.0))), "got 2 numbers for 1 heads"),
    (lambda: ALiBi("steep"), "the slope of ALiBi is one number"),
    (lambda: ALiBi(np.inf), "the slope of ALiBi is finite"),
    (lambda: Decay(0.0), "above 0 and at most 1"),
    (lambda: POSITIONS["power"](-1.0), "finite and not negative"),
    (lambda: RoPE(0.5), "at least 1"),
    (lambda: Softpick(0.0), "finite and positive"),
    (lambda: QKNorm(kind="layer"), "unknown kind of QK-norm"),
    (lambda: QKNorm(np.nan), "the gain of QK-norm is a finite number"),
    (lambda: QKNorm(eps=-1.0), "the eps of QK-norm"),
    (lambda: replace(FRESH, weights=Fixed(np.eye(4), np.eye(4)), position=RoPE()),
     "RoPE acts on queries and keys"),
    (lambda: replace(FRESH, weights=Fixed(np.eye(4), np.eye(4)), qk_norm=QKNorm()),
     "QK-norm acts on queries and keys"),
    (lambda: replace(FRESH, weights=Weights(Jordan(1.0)), qk_norm=QKNorm()), "given whole"),
    (lambda: replace(FRESH, weights=Weights(beta=2.0), qk_norm=QKNorm()),
     "QK-norm leaves nothing of the inverse temperature"),
    (lambda: replace(FRESH, weights=Sharpened(Weights(), 2.0), qk_norm=QKNorm()),
     "QK-norm leaves nothing of the inverse temperature"),
    (lambda: replace(FRESH, position=RoPE()).check_tokens(np.ones((4, 3))), "an even number"),
    (lambda: replace(FRESH, qk_norm=QKNorm((1.0, 2.0))).check_tokens(X), "got 2 for keys of 4"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_registries_hold_every_class_and_defaults_are_plain():
    assert isinstance(POSITIONS["none"](), NoPosition)
    assert ATTENTION["softmax"]() == Softmax()
    assert QK_NORMS["none"]() == NoQKNorm()
    assert QK_NORMS["rms"](2.0) == QKNorm(2.0, "rms")
    assert SCHEDULES["linear"](1.0, 2.0, 3).at(1) == 1.5
