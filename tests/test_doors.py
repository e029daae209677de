"""Wherever a value enters the library, what does not belong there is refused with one sentence.

`DOORS` is a table of every place where a value enters: what is done with it, what goes in, and what
must not. What goes in is computed with; everything else is a ValueError of one line in our own
words, before any layer is computed and before any file is written.
"""

import inspect
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import dynsim
from dynsim import (
    AttentionDynamics,
    Dropout,
    Record,
    basins,
    bounds,
    connectivity,
    continuation,
    critical,
    equilibria,
    gaussian_keys,
    geometry,
    gram,
    influence,
    jacobian,
    lyapunov,
    masks,
    measures,
    mlp,
    norms,
    predictions,
    score_bounds,
    selectability,
    sensitivity,
    simulate,
    speeds,
    tokens,
    transient,
    weights,
)
from dynsim._memory import TooLarge
from dynsim._values import real_array, real_number, shown, whole
from dynsim.equilibria.design import design_value_matrix
from dynsim.equilibria.stability import transient as transient_at
from dynsim.geometry import decomposition, ellipsoid
from dynsim.network.deviation import Deviation, normalised
from dynsim.results.trajectory import joined

X = np.array([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0]])
I2 = np.eye(2)
ONES, NEAR = np.ones(2), np.ones((3, 2)) / 2**0.5
CAUSAL = masks.causal(3)
LAYER = AttentionDynamics(CAUSAL, weights.Fixed(0.5 * I2, I2), norms.Unit())
PLAIN = AttentionDynamics(masks.complete(3), weights.Fixed(0.5 * I2, 0.9 * I2))
RANDOM = AttentionDynamics(CAUSAL, weights.Weights())
FLOWING = AttentionDynamics(masks.complete(3), weights.Identity(), norms.Unit(), skip=2.0)
ROWS = np.array([[1.0, 0.0], [0.5, 0.5]])
DROPPING = AttentionDynamics(CAUSAL, weights.Weights(), dropout=Dropout(0.1))
RUN = simulate(LAYER, X, 20)
NEXT = simulate(LAYER, RUN.state, 2, start=20)
STATE = Deviation.split(X[None])
PERCEPTRON = mlp.MLPWeights(I2, np.zeros(2), I2, np.zeros(2))
MATRICES = weights.LayerWeights.from_matrices(I2[None], I2[None])
JORDAN, PAIR = equilibria.jordan_dynamics(2, 3.0), equilibria.jordan_family(2, 3.0, 2)[0]
LN = norms.LayerNorm()
ELLIPSOID = ellipsoid.image_ellipsoid([3.0, 4.0])
NAN, INF, LONG = math.nan, math.inf, np.longdouble("1e400")
HUGE = 10**400


# --- what does not belong -------------------------------------------------------------------------

NOT_WHOLE = (1.5, 2.0, np.float64(2), NAN, INF, True, np.True_, "3", [3], (), 1j, object(), int,
             np.array([2, 3]), -HUGE)  # fmt: skip
NOT_REAL = (None, "1", "a", True, 1j, 1 + 1e-30j, object(), [1.0], [1.0, 2.0], np.ones((1, 1)))
NOT_A_FLAG = ("yes", 2, 1.0, 0.0, [True])
THINGS = (None, -1.5, 5, 10**5000, NAN, 1j, "x", "unit", [1], ["a"], {}, {"a": 1}, np.array(["a"]),
          object(), int, norms.Unit, dynsim)  # fmt: skip
RAGGED, MASKED = [[1], [3, 4]], np.ma.masked_array(X, X > 0.9)
NOT_AN_ARRAY = (None, "abc", ["a"], {"a": 1}, np.array(["a"]), object(), 10**5000, norms.Unit,
                dynsim, RAGGED, MASKED)  # fmt: skip
NOT_TOKENS = (5, ONES, np.ones((0, 2)), np.ones((2, 2, 2, 2)))
NOT_A_GRAPH = (nx.Graph([(0, 1)]), nx.DiGraph(), nx.DiGraph([("a", "b")]))


def longdouble(a):
    return a.astype(np.longdouble)


#: How a good array is spoilt, and what the sentence that refuses it says that it got.
SPOILT = {
    lambda a: a + 0j: "complex128; give the real part",
    lambda a: a + 1e-3j: "complex128; give the real part",
    lambda a: a != 0: r"bool; write 1\.0 and 0\.0",
    lambda a: a.astype(object): "object; give integers or floating-point numbers",
    lambda a: a.astype(str): r"<U\d+; give integers or floating-point numbers",
}
if np.dtype(np.longdouble).itemsize > 8:  # elsewhere it is float64
    SPOILT[longdouble] = r"float\d+; round to float64 with astype"


# --- kinds of doors -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Door:
    """What is done with a value, values that go in, and what must not, with a pattern of words."""

    enter: Callable
    good: tuple
    bad: tuple[tuple[object, str], ...]


def door(enter, good, *groups, but=()):
    """`groups` are (pattern, values): a sentence with the pattern refuses each value.

    `but` are values of them that go in at this door.
    """
    but = {shown(value) for value in but}
    bad = ((v, pattern) for pattern, values in groups for v in values if shown(v) not in but)
    return Door(enter, good, tuple(bad))


def array(enter, good, *more, but=()):
    """For real numbers: of float64, which `good` is, or of float32."""
    spoilt = (
        (f"must hold real numbers; got {words}", [spoil(np.asarray(good))])
        for spoil, words in SPOILT.items()
        if not any(spoil is fine for fine in but)
    )
    other = "must hold real numbers|must be an array", NOT_AN_ARRAY
    return door(enter, (good, np.asarray(good, np.float32)), *spoilt, other, ("", more), but=but)


def number(enter, *more, good=(0.5, 1), but=()):
    unreal = "must hold real numbers|is one number", NOT_REAL
    return door(enter, good, unreal, ("", (NAN, INF, LONG, *more)), but=but)


def count(enter, good, *more, least=1, but=()):
    """For a whole number: `least` or above, and no larger than this machine can count or hold."""
    bad = "whole number|lies in|at least one neighbour", (*NOT_WHOLE, None, -1, least - 1)
    huge = "at most|lies in|smaller than|GiB", (HUGE, *more)
    return door(enter, (good, np.int32(good)), bad, huge, but=but)


def seed(enter):
    """As large as one likes."""
    return door(enter, (0, np.int64(3), 2**70, 2**200), ("seed", (*NOT_WHOLE, None, -1)))


def switch(enter):
    return door(enter, (True, False, np.True_), ("True or False", (*THINGS, *NOT_A_FLAG)))


def thing(enter, good, *more, but=()):
    """For an object or a name."""
    return door(enter, (good,), ("", (*THINGS, *more)), but=but)


def path(enter, suffix):
    """For the path of a file that is there."""
    none = f"no-such-file{suffix}"
    return door(enter, (), ("", (*THINGS, b"name", none, Path(none))))


def only(enter, good, *bad):
    """What no kind describes."""
    return door(enter, (good,), ("", bad))


# --- the doors ------------------------------------------------------------------------------------


def dynamics(**changed):
    return AttentionDynamics(**{"mask": CAUSAL, "weights": weights.Identity()} | changed)


def perceptron(**changed):
    return mlp.FixedMLP(PERCEPTRON._replace(**changed))


def deviation(**changed):
    parts = {"center": STATE.center, "shape": STATE.shape, "log_size": STATE.log_size}
    return Deviation(**parts | changed)


def run(**changed):
    return simulate(**{"dynamics": LAYER, "x0": X, "depth": 2} | changed)


def follow(x):
    def family(p):
        return AttentionDynamics(CAUSAL, weights.Fixed(p * I2, I2), norms.Unit())

    try:
        continuation.continue_equilibrium(family, x, 0.5, 0.6)
    except ValueError as error:
        if "multiplier is 1" not in str(error):
            raise


def exponents(**changed):
    return lyapunov.spectrum(LAYER, **{"x0": X, "layers": 2, "discard": 0} | changed)


def approach(x=NEAR, **changed):
    return equilibria.approach(LAYER, x, **{"samples": 1, "depth": 4} | changed)


MASKS = {
    **{f"masks.{name}": count(make, 4, 10**30) for name, make in masks.MASKS.items()},
    **{
        f"window of masks.{name}": count(lambda w, make=make: make(9, w), 2)
        for name, make in masks.MASKS.items()
        if "window" in inspect.signature(make).parameters
    },
    "prefix": count(lambda k: masks.prefix(9, k), 2, 10, but=(None,)),
    "sinks": count(lambda k: masks.sinks(9, 1, k), 2),
    "dilation": count(lambda k: masks.dilated(9, 1, k), 2),
    "stride of a mask": count(lambda k: masks.strided(9, 1, k), 2, 10, but=(None,)),
    "block": count(lambda k: masks.block_sparse(9, k), 2, but=(None,)),
    "random tokens": count(lambda k: masks.bigbird(9, random=k), 2, least=0),
    "global tokens": count(lambda k: masks.bigbird(9, sinks=k), 2, least=0),
    "bigbird's seed": count(lambda k: masks.bigbird(9, seed=k), 2, least=0),
    "from_array": thing(masks.from_array, I2, X, I2 - 1, I2 * NAN),
    "self_loops": switch(lambda b: masks.from_array(I2, self_loops=b)),
    "name of a mask": thing(lambda s: masks.from_array(I2, s), "mine", but=("x", "unit")),
    "masks.from_file": path(masks.from_file, ".npy"),
    **{
        f"connectivity.{name}": thing(getattr(connectivity, name), CAUSAL, *NOT_A_GRAPH)
        for name in (
            "center_nodes", "radius", "diameter", "eccentricities", "facts", "lambda_2",
            "uniform_walk", "is_strongly_connected", "is_quasi_strongly_connected",
        )
    },
}  # fmt: skip

NETWORK = {
    "samples": count(lambda k: tokens.gaussian(k, 3, 2), 2),
    "tokens": count(lambda k: tokens.gaussian(1, k, 2), 2),
    "tokens on the sphere": count(lambda k: tokens.sphere(2, k, 2), 2),
    "dimensions": count(lambda k: tokens.gaussian(2, 2, k), 2),
    "dimensions on the sphere": count(lambda k: tokens.sphere(1, 3, k), 2),
    "seed of tokens": seed(lambda s: tokens.sphere(1, 3, 2, s)),
    "first sample of tokens": count(lambda k: tokens.gaussian(1, 3, 2, 0, k), 2, least=0),
    "tokens.from_file": path(tokens.from_file, ".npy"),
    # weights
    "Fixed": array(lambda a: weights.Fixed(a, a), I2, *NOT_TOKENS),
    "Fixed, M": array(lambda a: weights.Fixed(a, I2), I2),
    "Fixed, W_V": array(lambda a: weights.Fixed(I2, a), I2),
    "from_matrices, M": array(
        lambda a: weights.LayerWeights.from_matrices(a, I2[None]), I2[None]
    ),
    "from_matrices, W_V": array(
        lambda a: weights.LayerWeights.from_matrices(I2[None], a), I2[None]
    ),
    **{
        f"Layers, {field}": array(
            lambda a, field=field: weights.Layers((MATRICES._replace(**{field: a}),)),
            getattr(MATRICES, field),
        )
        for field in MATRICES._fields
    },
    "Layers": thing(weights.Layers, [MATRICES], (), (I2,)),
    "a layer": thing(lambda v: weights.Layers((v,)), MATRICES),
    "name of layers": only(lambda s: weights.Layers((MATRICES,), s), "mine", None, 5, [1]),
    "FromArray": array(weights.FromArray, I2, *NOT_TOKENS[:-1], X),
    "Diagonal": array(weights.Diagonal, ONES, np.ones((2, 2)), [1j], [NAN], [], [True]),
    "gaussian": number(weights.Gaussian, 0.0, -1.0),
    "jordan": number(weights.Jordan, good=(0.5, 1, -1)),
    "scores": thing(lambda f: weights.Weights(scores=f), weights.Zero()),
    "value": thing(lambda f: weights.Weights(value=f), weights.Zero()),
    "heads": count(lambda h: weights.Weights(n_heads=h), 2),
    "d_qk": number(lambda a: weights.Weights(d_qk=a), 0.0, -1.5, *THINGS, but=(None, 5)),
    "mix": array(
        lambda a: weights.Weights(mix=a), np.ones(1),
        5, *THINGS, [1.0, 2.0], [None], [True], [NAN], [1j], np.ones((1, 2)), but=(None, [1]),
    ),
    "beta": number(lambda b: weights.Weights(beta=b), -1.5, *THINGS, but=(5,)),
    "sharpened": number(LAYER.weights.sharpened, -1.5, *THINGS, but=(5,)),
    "sharpened layer": number(LAYER.weights.layer(0, 2).sharpened, -1.5, *THINGS, but=(5,)),
    "shared": switch(lambda b: weights.Weights(shared=b)),
    "seed of weights": seed(lambda s: weights.Weights(seed=s)),
    "layer, Weights": count(lambda t: weights.Weights().layer(t, 2), 2**30, least=0),
    "layer, Layers": count(lambda t: LAYER.weights.layer(t, 2), 2, least=0),
    "dimension of a layer": count(lambda d: weights.Weights().layer(0, d), 2),
    # norms, MLPs, dropout
    **{
        f"{kind.__name__}, {field}": array(
            lambda a, kind=kind, field=field: kind(**{field: a}), [1.0, 2.0],
            True, 1j, NAN, INF, LONG, np.ones((2, 2)), [],
        )
        for kind, field in (
            (norms.RMSNorm, "gain"), (norms.LayerNorm, "gain"), (norms.LayerNorm, "bias")
        )
    },
    "RMSNorm, eps": number(lambda a: norms.RMSNorm(eps=a), -1.0, good=(0.5, 1, 0)),
    "LayerNorm, eps": number(lambda a: norms.LayerNorm(eps=a), -1.0, good=(0.5, 1, 0)),
    **{
        f"Norm.{name}": array(getattr(norms.Unit(), name), X, but=(longdouble,))
        for name in ("apply", "derivative", "undefined")
    },
    "Norm.apply, no axis": only(norms.Unit().apply, X, 5),
    **{
        f"FixedMLP, {field}": array(
            lambda a, field=field: perceptron(**{field: a}), getattr(PERCEPTRON, field),
            5, *NOT_TOKENS[2:],
        )
        for field in PERCEPTRON._fields
    },
    "FixedMLP": thing(mlp.FixedMLP, PERCEPTRON, tuple(PERCEPTRON)),
    "activation": thing(lambda s: mlp.GaussianMLP(activation=s), "relu"),
    "sigma of an MLP": number(lambda a: mlp.GaussianMLP(sigma=a), 0.0, -1.0),
    "width of an MLP": count(lambda k: mlp.GaussianMLP(width=k), 2),
    "seed of an MLP": seed(lambda s: mlp.GaussianMLP(seed=s)),
    "shared, MLP": switch(lambda b: mlp.GaussianMLP(shared=b)),
    "hidden dropout": number(lambda p: Dropout(hidden=p), -0.1, 1.0, good=(0.5, 0)),
    "attention dropout": number(lambda p: Dropout(attention=p), -0.1, 1.0, good=(0.5, 0)),
    "place of dropout": thing(lambda name: Dropout(0.1).scaled(X, name, 0, 0), "mlp"),
    "seed of dropout": seed(lambda s: Dropout(0.1, seed=s)),
    # dynamics
    "mask": thing(lambda g: dynamics(mask=g), CAUSAL, *NOT_A_GRAPH),
    "mask from an array": only(lambda g: dynamics(mask=g, weights=weights.Identity()), I2),
    "weights": thing(lambda w: dynamics(weights=w), weights.Identity()),
    "norm": thing(lambda f: dynamics(norm=f), norms.Unit()),
    "mlp": thing(lambda f: dynamics(mlp=f), mlp.GaussianMLP()),
    "no mlp": thing(lambda f: dynamics(mlp=f), mlp.NoMLP()),
    "mlp_norm": thing(lambda f: dynamics(mlp_norm=f), None, but=(None,)),
    "dropout": thing(lambda f: dynamics(dropout=f), Dropout(0.5)),
    "placement": thing(lambda name: dynamics(placement=name), "pre"),
    "skip": number(lambda a: dynamics(skip=a), good=(0.5, 1, -1)),
    "step": array(LAYER.step, X, *NOT_TOKENS, X[None]),
    "step, t": count(lambda t: LAYER.step(X, t), 2, least=0),
    "step, sample": count(lambda s: LAYER.step(X, 0, s), 2, least=0),
    "step, sample with dropout": count(lambda s: DROPPING.step(X, 0, s), 2, least=0),
    "attention": array(LAYER.attention, X, *NOT_TOKENS, X[None]),
    "attention, t": count(lambda t: LAYER.attention(X, t), 2, least=0),
    "check_tokens": array(LAYER.check_tokens, X, *NOT_TOKENS, X * NAN, X + INF, 0 * X),
    "jacobian, x": array(lambda x: jacobian.jacobian(LAYER, x), X),
    "image, x": array(lambda x: jacobian.image(LAYER, x), X),
    "tangent_basis, x": array(lambda x: jacobian.tangent_basis(LAYER, x), X),
    "jacobian, t": count(lambda t: jacobian.jacobian(LAYER, X, t), 2, least=0),
    "image, t": count(lambda t: jacobian.image(LAYER, X, t), 2, least=0),
    **{
        f"jacobian.{name}": thing(lambda d, name=name: getattr(jacobian, name)(d, X), LAYER)
        for name in ("jacobian", "image", "linearise", "tangent_basis")
    },
    # tokens near consensus
    "Deviation, center": array(
        lambda a: deviation(center=a), STATE.center, *THINGS, *NOT_TOKENS, I2
    ),
    "Deviation, shape": array(
        lambda a: deviation(shape=a), STATE.shape, *THINGS, *NOT_TOKENS, np.ones((2, 3, 2))
    ),
    "Deviation, log_size": array(
        lambda a: deviation(log_size=a), STATE.log_size, *THINGS, 5, ONES, but=([1], RAGGED)
    ),
    "Deviation, observed": array(
        lambda a: deviation(observed=a), np.ones((1, 2)), *THINGS, 5, I2, but=(None,)
    ),
    "Deviation, perturbed": thing(
        lambda runs: deviation(perturbed=runs), (STATE,),
        (1,), [STATE], (Deviation.split(np.ones((2, 3, 2))),),
    ),
    "Deviation.whole": array(Deviation.whole, X[None], *THINGS, *NOT_TOKENS, X),
    "Deviation.split": array(Deviation.split, X[None], *THINGS, *NOT_TOKENS, X),
    "state of a norm": thing(lambda s: normalised(s, norms.Unit()), STATE),
}  # fmt: skip

SIMULATE = {
    "dynamics": thing(lambda v: run(dynamics=v), LAYER),
    "x0": array(
        lambda x: run(x0=x), X, *THINGS, *NOT_TOKENS, X * NAN, X + INF, deviation(log_size=[NAN])
    ),
    "x0, reference": array(lambda x: run(x0=x, engine="reference"), X),
    "x0, list": only(lambda x: run(x0=x), X.tolist()),
    "depth": count(lambda v: run(depth=v), 2, 10**15),
    "record": thing(lambda v: run(record=v), Record(), ("mu",), but=(None,)),
    "engine": thing(lambda v: run(engine=v), "reference"),
    "device": only(lambda v: run(device=v), None, 5, "cuda", [1]),
    "threads": count(lambda v: run(threads=v), 1, but=(None,)),
    "start": count(lambda v: run(start=v), 2, least=0),
    "first sample": count(lambda v: run(first_sample=v), 2, least=0),
    "progress": thing(
        lambda v: run(progress=v), lambda t: None, 5, "a", but=(None, int, norms.Unit)
    ),
    "set_threads": count(dynsim.set_threads, 1, but=(None,)),
    "measures": thing(
        lambda names: Record(measures=names), ["mu", "rank"],
        "mu", "rank", True, ["nope"], [5], [None], [[]], {1: 2}, but=(None,),
    ),
    "measure": thing(lambda name: Record(measures=(name,)), "rank"),
    "stride": count(lambda k: Record(stride=k), 2),
    "stride, in words": only(lambda k: Record(stride=k), 3, "no", ONES),
    "states": count(lambda k: Record(states=k), 2, least=0),
    "load": path(dynsim.load, ".nc"),
    "save": door(RUN.save, (), ("", (None, 5, b"name", "run.pkl"))),
    "to_csv": door(RUN.to_csv, (), ("", (None, 5, b"name"))),
    "to_json": door(RUN.to_json, (), ("", (None, 5, b"name"))),
    "joined": thing(lambda other: joined(RUN, other), NEXT, RUN),
}  # fmt: skip

#: What a measure takes, or refuses in words of numpy's.
TAKEN = {"log10_mu_error": (RAGGED, MASKED)}

READING = {
    **{
        f"measure {name}": array(measure.function, X, 5, np.ones(3), but=TAKEN.get(name, ()))
        for name, measure in measures.MEASURES.items()
        if measure.function is not None
    },
    "singular_values": array(measures.singular_values, X),
    # collapse
    "predict": thing(lambda d: dynsim.predict(d, X), LAYER),
    "predict, x0": array(lambda x: dynsim.predict(LAYER, x), X, *NOT_TOKENS),
    "predict, t": count(lambda t: dynsim.predict(LAYER, X, t), 2, least=0),
    "transversal_growth": thing(lambda d: predictions.transversal_growth(d, X[0], 2), LAYER),
    "transversal_growth, token": array(
        lambda c: predictions.transversal_growth(LAYER, c, layers=2), X[0]
    ),
    "layers of growth": count(lambda v: predictions.transversal_growth(LAYER, X[0], v), 2),
    "cubic_step": thing(lambda d: predictions.cubic_step(d, X, X[0]), PLAIN),
    "cubic_step, z": array(lambda z: predictions.cubic_step(PLAIN, z, X[0]), X),
    "cubic_step, token": array(lambda c: predictions.cubic_step(PLAIN, X, c), X[0]),
    "cubic_step, t": count(lambda t: predictions.cubic_step(PLAIN, X, X[0], t), 2, least=0),
    "mu_bounds": thing(lambda d: bounds.mu_bounds(d, X, 2), PLAIN),
    "depth of bounds": count(lambda v: bounds.mu_bounds(PLAIN, X, v), 2),
    "start of bounds": count(lambda v: bounds.mu_bounds(PLAIN, X, 2, v), 2, least=0),
    "window of bounds": count(
        lambda v: bounds.mu_bounds(PLAIN, X, 2, window=v), 2, but=(None,)
    ),
    "infinite_width": thing(lambda d: gram.infinite_width(d, X, 2), RANDOM),
    "depth of a width limit": count(lambda v: gram.infinite_width(RANDOM, X, v), 2),
    "interaction_energy, beta": number(lambda b: measures.interaction_energy(X, b)),
    "position_influence": array(measures.position_influence, ROWS[None]),
    "influence, skip": array(lambda s: measures.position_influence(ROWS[None], s), ONES[:1]),
    "influence, tokens": count(lambda n: measures.uniform_causal_influence(n, 2), 3),
    "influence, depth": count(lambda t: measures.uniform_causal_influence(3, t), 2, least=0),
    "sink_share": array(measures.sink_share, ROWS),
    "attention_spectrum": array(measures.attention_spectrum, ROWS),
    "bulk_share": array(measures.bulk_share, ONES),
    "attention_of_run": thing(lambda d: influence.attention_of_run(d, X, 2), LAYER),
    "attention_of_run, x0": array(lambda x: influence.attention_of_run(LAYER, x, 2), X),
    "attention_of_run, depth": count(lambda t: influence.attention_of_run(LAYER, X, t), 2),
    "influence_bound, eps": number(lambda e: influence.influence_bound(3, 2, e), good=(0.3,)),
    "equiangular, tokens": count(lambda n: critical.own_weight(n, 0.5, 1.0), 3, least=2),
    "equiangular, rho": array(lambda r: critical.own_weight(3, r, 1.0), 0.3 * ONES),
    "critical_scale": array(critical.critical_scale, 0.3 * ONES),
    "mean_squared_jacobian": thing(
        lambda d: sensitivity.mean_squared_jacobian(d, X, 2), LAYER
    ),
    "mean_squared_jacobian, x": array(
        lambda x: sensitivity.mean_squared_jacobian(LAYER, x, 2), X
    ),
    "late_speed": thing(lambda d: speeds.late_speed(d, 2), FLOWING),
    "flow_times": count(lambda t: speeds.flow_times(FLOWING, t), 3, least=0),
    "score_bounds": thing(lambda d: score_bounds.score_bounds(d, X, 2, 1.0), PLAIN),
    "score_bounds, x0": array(
        lambda x: score_bounds.score_bounds(PLAIN, x, 2, 1.0), X
    ),
    "bound of scores": number(
        lambda b: score_bounds.score_bounds(PLAIN, X, 2, b), but=(None,)
    ),
    "collapse_rate": thing(dynsim.collapse_rate, RUN),
    "power of t": number(lambda p: dynsim.collapse_rate(RUN, power=p), good=(0.5, 1, 0)),
    "verdict": thing(dynsim.verdict, RUN),
    "compare": thing(lambda d: dynsim.compare_with_theory(d, X, RUN), LAYER),
    "compare, x0": array(
        lambda x: dynsim.compare_with_theory(LAYER, x, RUN), X, *NOT_TOKENS, X + INF
    ),
    "compare, trajectory": thing(lambda r: dynsim.compare_with_theory(LAYER, X, r), RUN),
    "deviation_walk": thing(transient.deviation_walk, CAUSAL),
    "transient_growth": array(lambda a: transient.transient_growth(a, 10), 0.5 * I2),
    "largest power": count(lambda k: transient.transient_growth(0.5 * I2, k), 2),
    "kreiss_constant": array(transient.kreiss_constant, 0.5 * I2),
    # equilibria
    "stability": thing(lambda d: equilibria.stability(d, NEAR), LAYER),
    "stability, x": array(lambda x: equilibria.stability(LAYER, x), NEAR),
    "transient, x": array(lambda x: transient_at(LAYER, x), NEAR),
    "basin_radius, x": array(
        lambda x: equilibria.basin_radius(LAYER, x, samples=1, depth=2), NEAR
    ),
    "approach, x": array(approach, NEAR),
    "samples around": count(lambda k: approach(samples=k), 2),
    "depth of an approach": count(lambda k: approach(depth=k), 5, least=4),
    "seed of an approach": seed(lambda s: approach(seed=s)),
    "certify": thing(lambda d: equilibria.certify(d, PAIR), JORDAN),
    "tokens of jordan": count(lambda n: equilibria.jordan_dynamics(n, 1.0), 2),
    "tokens of the family": count(lambda n: equilibria.jordan_family(n, 9.0, 1), 2),
    "rank of the family": count(lambda r: equilibria.jordan_family(4, 9.0, r), 2),
    "design, X": array(lambda x: design_value_matrix(x, masks.causal(2)), I2),
    "design, scores": array(
        lambda a: design_value_matrix(I2, masks.causal(2), scores=a), I2, but=(None,)
    ),
    "design, norms": array(
        lambda a: design_value_matrix(I2, masks.causal(2), norms=a), ONES, but=(None,)
    ),
    "limit_sets": thing(lambda d: basins.limit_sets(d, X[None], depth=64), LAYER),
    "limit_sets, x0": array(lambda x: basins.limit_sets(LAYER, x, depth=64), X[None]),
    "angles": count(basins.circle_pairs, 2),
    "dimension of starts": count(
        lambda d: basins.basins(LAYER, 1, dim=d, depth=64), 2, but=(None,)
    ),
    "continuation": array(follow, np.tile([1.0, 0.0], (3, 1))),
    "lyapunov": thing(lambda d: lyapunov.spectrum(d, X, layers=1, discard=0), LAYER),
    "lyapunov, x0": array(lambda x: exponents(x0=x), X),
    "transversal exponent": array(
        lambda c: lyapunov.transversal(LAYER, c, layers=2, discard=0), X[0]
    ),
    "layers of exponents": count(lambda k: exponents(layers=k), 2),
    "discarded layers": count(lambda k: exponents(discard=k), 2, least=0),
    "exponents": count(lambda k: exponents(count=k), 2, but=(None,)),
    "seed of exponents": seed(lambda s: exponents(layers=1, seed=s)),
    # geometry
    "decompose": array(decomposition.decompose, X),
    "angle_to_ones": array(decomposition.angle_to_ones, X),
    "closed form": array(decomposition.layer_norm_closed_form, X),
    "closed form, gain": array(lambda a: decomposition.layer_norm_closed_form(X, a), ONES),
    "closed form, bias": array(lambda a: decomposition.layer_norm_closed_form(X, 1.0, a), ONES),
    "ellipsoid, gain": array(ellipsoid.image_ellipsoid, [3.0, 4.0]),
    "ellipsoid, bias": array(lambda a: ellipsoid.image_ellipsoid([3.0, 4.0], a), ONES),
    **{
        f"ellipsoid, {name}": array(getattr(ELLIPSOID, name), np.zeros(2))
        for name in ("coordinates", "off_plane", "level", "contains", "distance_to_surface")
    },
    "changes": thing(lambda f: geometry.changes(f, X), LN),
    "changes, x": array(lambda x: geometry.changes(LN, x), X),
    "survey": thing(lambda f: geometry.survey("X", f, X), norms.LayerNorm([1.0, 2.0])),
    "survey, x": array(
        lambda x: geometry.survey("X", norms.LayerNorm(np.array([1.0, 2.0])), x), X
    ),
    "selectable": array(selectability.selectable, X),
    "selectable, biases": array(
        lambda b: selectability.selectable(X, biases=b), np.zeros(3), but=(None,)
    ),
    "gap": number(lambda a: selectability.selectable(X, gap=a)),
    "bound": number(lambda a: selectability.selectable(X, bound=a), but=(None, INF)),
    "margins": array(selectability.margins, X),
    "unselectable_fraction": array(selectability.unselectable_fraction, X),
    "keys": count(lambda n: gaussian_keys.expected_unselectable(n, 2), 4),
    "vertices": count(gaussian_keys.internal_angle, 4),
    "vertices of a simplex": count(lambda n: gaussian_keys.external_angle(1, n), 4),
    "vertices of a face": count(lambda m: gaussian_keys.external_angle(m, 4), 4, 5),
}  # fmt: skip

DOORS = MASKS | NETWORK | SIMULATE | READING


# --- the tests ------------------------------------------------------------------------------------

#: Words of Python and numpy about what they were asked to do, not about what was given.
OTHERS = (
    "unpack", "broadcast", "truth value", "could not convert", "setting an array", "sequence",
    "Maximum allowed", "core dimension", "reshape", "invalid literal",
)  # fmt: skip


def refused(enter, bad):
    """The sentence with which a door refuses: one short line of our own."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            enter(bad)
    except ValueError as error:
        words = str(error)
    except TooLarge as error:  # a kind of its own for what is only too large
        words = str(error)
        assert isinstance(bad, int)
        assert bad > 10**9
    except Exception as error:
        raise AssertionError(f"{shown(bad)}: {error!r}") from error
    else:
        raise AssertionError(f"{shown(bad)} went in")
    assert 0 < len(words) < 500
    assert "\n" not in words
    assert not any(other in words for other in OTHERS), words
    return words


@pytest.mark.parametrize("name", DOORS)
def test_what_belongs_goes_in(name):
    for value in DOORS[name].good:
        DOORS[name].enter(value)
    dynsim.set_threads(None)


@pytest.mark.parametrize("name", DOORS)
def test_what_does_not_belong_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dynsim.simulation._Run", None)  # no layer is computed
    for value, pattern in DOORS[name].bad:
        words = refused(DOORS[name].enter, value)
        assert re.search(pattern, words), shown(value)
        assert shown(value) in words or "whole number" not in pattern
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["apply", "derivative", "undefined"])
def test_a_norm_rounds_no_longdouble(name):
    assert getattr(norms.Unit(), name)(longdouble(X)).dtype in (np.longdouble, bool)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_files_of_other_arrays_are_refused(suffix, tmp_path):
    def read(values):
        file = tmp_path / f"x0.{suffix}"
        np.save(file, values) if suffix == "npy" else np.savez(file, x0=values)
        return tokens.from_file(file)

    read(X)
    for bad in (X + 0j, X != 0, X.astype(str)):
        with pytest.raises(ValueError, match=r"x0\.np.: array.* must hold real numbers"):
            read(bad)


def test_masks_are_of_booleans_or_real_numbers(tmp_path):
    allowed = np.tri(3).T
    for good in (allowed, allowed != 0, allowed.astype(int)):
        masks.from_array(good)
    np.save(tmp_path / "mask.npy", allowed + 0j)
    for enter in (masks.from_array, lambda _: masks.from_file(tmp_path / "mask.npy")):
        with pytest.raises(ValueError, match="finite numbers or booleans"):
            enter(allowed + 0j)


def test_integers_and_short_floats_become_float64_and_float32_may_stay():
    for dtype in (np.int8, np.uint16, np.int64, np.float16, np.float64):
        assert real_array("a", np.ones(2, dtype)).dtype == np.float64
    assert real_array("a", np.ones(2, np.float32)).dtype == np.float64
    assert real_array("a", np.ones(2, np.float32), own=(np.float32,)).dtype == np.float32
    assert real_number("a", np.float32(0.5)) == 0.5
    with pytest.raises(ValueError, match="a must be an array; got lists of different lengths"):
        real_array("a", [[1.0], [1.0, 2.0]])


def test_tokens_of_integers_are_not_computed_with_in_integers():
    """Weights and results once took the type of the tokens."""
    x = np.array([[3, 4], [1, 2], [0, 1]])
    assert np.array_equal(norms.Unit().apply(x), norms.Unit().apply(x.astype(float)))
    assert np.array_equal(PLAIN.step(x), PLAIN.step(x.astype(float)))
    assert np.array_equal(PLAIN.attention(x), PLAIN.attention(x.astype(float)))


#: What is refused for its shape or its value, and words of the sentence that says so.
SENTENCES = [
    (lambda: AttentionDynamics(nx.Graph([(0, 1)]), weights.Identity()), "networkx.DiGraph"),
    (lambda: LAYER.weights.sharpened(-1.0), "not negative"),
    (lambda: LAYER.weights.layer(0, 2).sharpened(NAN), "not negative"),
    (lambda: weights.Weights(mix=(NAN,)), "one finite weight per head"),
    (lambda: weights.Weights(mix=((1.0,),)), "one finite weight per head"),
    (lambda: weights.Weights(mix=()), "one finite weight per head"),
    (lambda: weights.Weights(value=weights.FromArray(np.ones((2, 1, 2, 2)))).layer(2, 2), "2"),
    (lambda: weights.Layers(LAYER.weights.entries * 2).layer(2, 2), "asked for layer 2"),
    (lambda: weights.Layers(LAYER.weights.entries * 2).layer(-1, 2), "at least 0"),
    (lambda: weights.Layers(()), "got none"),
    (lambda: norms.LayerNorm(NAN), "finite"),
    (lambda: norms.LayerNorm(1.0, [0.0, INF]), "finite"),
    (lambda: norms.LayerNorm(eps=-1.0), "not negative"),
    (lambda: norms.RMSNorm(eps=None), "real numbers"),
    (lambda: norms.RMSNorm(eps=INF), "not negative"),
    (lambda: perceptron(b_1=np.zeros(3)), r"W_1 \(d, m\)"),
    (lambda: perceptron(W_1=np.zeros(3)), r"W_1 \(d, m\)"),
    (lambda: perceptron(W_1=np.float64(3)), r"W_1 \(d, m\)"),
    (lambda: perceptron(W_2=np.full((2, 2), NAN)), "finite"),
    (lambda: mlp.GaussianMLP(sigma=NAN), "positive and finite"),
    (lambda: Dropout(1.0), "probability"),
    (lambda: Dropout(NAN), "probability"),
    (lambda: deviation(center=np.zeros((2, 2))), "samples"),
    (lambda: deviation(center=np.zeros((1, 3))), "samples"),
    (lambda: deviation(perturbed=(X,)), "entry of perturbed"),
    (lambda: deviation(perturbed=(Deviation.split(X[None, :2]),)), "of the same shape"),
    (lambda: run(x0=deviation(log_size=[NAN]), engine="logscale"), "found NaN"),
    (lambda: run(x0=deviation(log_size=[INF]), engine="logscale"), "finite"),
    (lambda: run(x0=np.zeros((2, 0, 2))), "none of them 0"),
    (lambda: run(x0=X[:2]), "mask is for 3 tokens"),
    (lambda: run(x0=np.full((3, 2), NAN)), "finite"),
    (lambda: run(device=3), "device"),
    (lambda: basins.basins(LAYER, 1, dim=7), "weights are for dimension 2; got dim=7"),
    (lambda: dynsim.collapse_rate(RUN, power=NAN), "power of t is a finite number"),
    (lambda: dynsim.collapse_rate(RUN, power=INF), "power of t is a finite number"),
]


@pytest.mark.parametrize(("make", "words"), SENTENCES)
def test_wrong_shapes_and_values(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_values_are_shown_in_one_short_line():
    assert shown(3) == "3"
    assert shown(np.eye(2)) == "array([[1., 0.], [0., 1.]])"
    assert len(shown("x" * 1000)) == 80
    assert shown(1 << 20_000) == "a number of 20001 bits"
    with pytest.raises(ValueError, match="at least 1 and at most 5; got 6"):
        whole("number", 6, least=1, most=5)
