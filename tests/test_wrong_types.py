"""What is no number, no array, no object of the right kind is refused where it enters.

Every door of the library that takes something other than arrays of numbers (tests/test_doors.py)
with a table of what does not belong there: each is a ValueError of one line of our own, before
any layer is computed.
"""

import inspect

import networkx as nx
import numpy as np
import pytest

import dynsim
from dynsim import (
    AttentionDynamics,
    Dropout,
    Record,
    connectivity,
    jacobian,
    masks,
    measures,
    mlp,
    norms,
    simulate,
    tokens,
    weights,
)
from dynsim.network.deviation import Deviation
from dynsim.results.trajectory import joined

X = np.array([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0]])
I2 = np.eye(2)
DYNAMICS = AttentionDynamics(masks.causal(3), weights.Fixed(0.5 * I2, I2), norms.Unit())
RUN = simulate(DYNAMICS, X, 20)
STATE = Deviation.split(X[None])
LAYER = weights.LayerWeights.from_matrices(I2[None], I2[None])
PERCEPTRON = mlp.MLPWeights(I2, np.zeros(2), I2, np.zeros(2))
NAN, INF, LONG = float("nan"), float("inf"), np.longdouble("1e400")

#: What is no whole number, no size, no number above 0, no flag, no object, no name, no path.
NOT_WHOLE = (1.5, np.float64(2.0), "3", True, np.True_, NAN, 1j, [2], object())
NOT_A_COUNT = (*NOT_WHOLE, None, 0, -1)
NOT_A_SEED = (*NOT_WHOLE, None, -1)
NOT_A_NUMBER = (None, "a", True, 1j, [1.0, 2.0], NAN, INF, LONG, object())
NOT_POSITIVE = (*NOT_A_NUMBER, 0.0, -1.0)
NOT_A_FLAG = (None, "yes", 2, 1.0, [True])
NOT_AN_OBJECT = ("unit", 5, object(), int, [1], {})
NOT_A_PATH = (None, 5, b"name")
NOT_TOKENS = (
    None, "abc", 5, np.ones(2), X + 0j, X != 0, X.astype(object), X.astype(str), [[1], [3, 4]],
    np.ones((0, 2)), np.ones((2, 2, 2, 2)), np.ma.masked_array(X, X > 0.9), X.astype(np.longdouble),
)  # fmt: skip
NOT_A_GRAPH = (None, "a", 5, nx.Graph([(0, 1)]), nx.DiGraph(), nx.DiGraph([("a", "b")]))
WINDOWED = [
    name for name, make in masks.MASKS.items() if "window" in inspect.signature(make).parameters
]


beside = dynsim.compare_with_theory


def dynamics(**changed):
    return AttentionDynamics(**{"mask": masks.causal(3), "weights": weights.Identity()} | changed)


def deviation(**changed):
    parts = {"center": STATE.center, "shape": STATE.shape, "log_size": STATE.log_size}
    return Deviation(**parts | changed)


#: Every door: what is done with the value, what must be refused, and one that must not.
DOORS = {
    **{
        f"masks.{name}": (lambda n, make=make: make(n), (*NOT_A_COUNT, 10**30), 3)
        for name, make in masks.MASKS.items()
    },
    **{
        f"masks.{name}, window": (lambda w, name=name: masks.MASKS[name](9, w), NOT_A_COUNT, 1)
        for name in WINDOWED
    },
    "prefix, length": (lambda k: masks.prefix(9, k), (*NOT_WHOLE, 0, 10), 2),
    "sinks, sinks": (lambda k: masks.sinks(9, sinks=k), NOT_A_COUNT, 2),
    "dilated, dilation": (lambda k: masks.dilated(9, dilation=k), NOT_A_COUNT, 2),
    "strided, stride": (lambda k: masks.strided(9, stride=k), (*NOT_WHOLE, 0, 10), 2),
    "block_sparse, block": (lambda k: masks.block_sparse(9, block=k), (*NOT_WHOLE, 0), 2),
    "bigbird, random": (lambda k: masks.bigbird(9, random=k), NOT_A_SEED, 2),
    "bigbird, seed": (lambda k: masks.bigbird(9, seed=k), NOT_A_SEED, 2),
    "from_array": (masks.from_array, (None, "a", 5, X, I2 - 1, I2 * NAN, [1], {}), I2),
    "from_array, self_loops": (lambda b: masks.from_array(I2, self_loops=b), NOT_A_FLAG, True),
    "masks.from_file": (masks.from_file, (*NOT_A_PATH, "no-such-file"), None),
    "tokens.from_file": (tokens.from_file, (*NOT_A_PATH, "no-such-file.npy"), None),
    "mask": (lambda g: dynamics(mask=g), (*NOT_A_GRAPH, *NOT_AN_OBJECT), I2),
    "weights": (lambda w: dynamics(weights=w), (None, *NOT_AN_OBJECT), weights.Identity()),
    "norm": (lambda f: dynamics(norm=f), (None, *NOT_AN_OBJECT), norms.Unit()),
    "mlp": (lambda f: dynamics(mlp=f), (None, *NOT_AN_OBJECT), mlp.GaussianMLP()),
    "mlp_norm": (lambda f: dynamics(mlp_norm=f), NOT_AN_OBJECT, None),
    "dropout": (lambda f: dynamics(dropout=f), (None, *NOT_AN_OBJECT), Dropout(0.5)),
    "placement": (lambda name: dynamics(placement=name), (None, *NOT_AN_OBJECT), "pre"),
    "skip": (lambda a: dynamics(skip=a), NOT_A_NUMBER, -1),
    "hidden dropout": (lambda p: Dropout(hidden=p), (*NOT_A_NUMBER, -0.1, 1.0), 0.5),
    "attention dropout": (lambda p: Dropout(attention=p), (*NOT_A_NUMBER, -0.1, 1.0), 0.5),
    "seed of dropout": (lambda s: Dropout(seed=s), NOT_A_SEED, 2**70),
    "scores": (lambda f: weights.Weights(scores=f), (None, *NOT_AN_OBJECT), weights.Zero()),
    "value": (lambda f: weights.Weights(value=f), (None, *NOT_AN_OBJECT), weights.Zero()),
    "n_heads": (lambda h: weights.Weights(n_heads=h), NOT_A_COUNT, np.int32(2)),
    "d_qk": (lambda a: weights.Weights(d_qk=a), [a for a in NOT_POSITIVE if a is not None], 2),
    "mix": (
        lambda a: weights.Weights(mix=a),
        (5, "a", [1.0, 2.0], [None], ["a"], [True], [NAN], [1j], np.ones((1, 2))), [0.5],
    ),
    "shared": (lambda b: weights.Weights(shared=b), NOT_A_FLAG, np.True_),
    "seed of weights": (lambda s: weights.Weights(seed=s), NOT_A_SEED, 2**70),
    "layer": (lambda t: weights.Weights().layer(t, 2), NOT_A_SEED, 2**40),
    "dimension of a layer": (lambda d: weights.Weights().layer(0, d), NOT_A_COUNT, 2),
    "gaussian": (weights.Gaussian, NOT_POSITIVE, 2),
    "jordan": (weights.Jordan, NOT_A_NUMBER, -1),
    "diagonal": (weights.Diagonal, (None, "a", np.ones((2, 2)), [1j], [NAN], [], [True]), 1),
    "FromArray": (weights.FromArray, (*NOT_TOKENS[:-3], X), I2),
    "Layers": (weights.Layers, (None, *NOT_AN_OBJECT, (), (I2,)), [LAYER]),
    "Layers, name": (lambda s: weights.Layers((LAYER,), s), (None, 5, [1]), "mine"),
    "Fixed": (lambda a: weights.Fixed(a, a), NOT_TOKENS, I2),
    "sigma of an MLP": (lambda a: mlp.GaussianMLP(sigma=a), NOT_POSITIVE, 2),
    "width of an MLP": (lambda k: mlp.GaussianMLP(width=k), NOT_A_COUNT, 2),
    "seed of an MLP": (lambda s: mlp.GaussianMLP(seed=s), NOT_A_SEED, 2**70),
    "shared of an MLP": (lambda b: mlp.GaussianMLP(shared=b), NOT_A_FLAG, True),
    "activation": (lambda s: mlp.GaussianMLP(s), (None, *NOT_AN_OBJECT), "relu"),
    "FixedMLP": (mlp.FixedMLP, (None, *NOT_AN_OBJECT, tuple(PERCEPTRON)), PERCEPTRON),
    "FixedMLP, shapes": (
        lambda a: mlp.FixedMLP(PERCEPTRON._replace(W_1=a)), NOT_TOKENS, I2.tolist()
    ),
    **{
        f"{kind.__name__}, {name}": (
            lambda a, kind=kind, name=name: kind(**{name: a}),
            (None, "a", True, 1j, NAN, INF, LONG, np.ones((2, 2)), []), [1, 2],
        )
        for kind, name in (
            (norms.RMSNorm, "gain"), (norms.LayerNorm, "gain"), (norms.LayerNorm, "bias")
        )
    },
    "RMSNorm, eps": (lambda a: norms.RMSNorm(eps=a), (*NOT_A_NUMBER, -1.0), 0),
    "LayerNorm, eps": (lambda a: norms.LayerNorm(eps=a), (*NOT_A_NUMBER, -1.0), 0),
    "Norm.apply": (norms.Unit().apply, (None, "abc", 5, X + 0j), X),
    "samples": (lambda k: tokens.gaussian(k, 2, 2), (*NOT_A_COUNT, ), np.int64(2)),
    "tokens": (lambda k: tokens.sphere(2, k, 2), NOT_A_COUNT, 2),
    "dimensions": (lambda k: tokens.gaussian(2, 2, k), NOT_A_COUNT, 2),
    "seed of tokens": (lambda s: tokens.sphere(2, 2, 2, s), NOT_A_SEED, 2**70),
    "measures": (
        lambda names: Record(measures=names), (5, "mu", True, ["nope"], [5], [None], [[]], {1: 2}),
        ["mu"],
    ),
    "stride": (lambda k: Record(stride=k), (*NOT_A_COUNT, "no", np.ones(2)), 2),
    "states": (lambda k: Record(states=k), NOT_A_SEED, 2),
    "Deviation, center": (lambda a: deviation(center=a), (*NOT_TOKENS, I2), STATE.center.tolist()),
    "Deviation, shape": (lambda a: deviation(shape=a), (*NOT_TOKENS, np.ones((2, 3, 2))), X[None]),
    "Deviation, log_size": (
        lambda a: deviation(log_size=a), (None, "a", 5, np.ones(2), np.array([1j])), [-3]
    ),
    "Deviation, observed": (
        lambda a: deviation(observed=a), ("a", 5, I2, np.ones((1, 2)) + 0j), np.ones((1, 2))
    ),
    "Deviation, perturbed": (
        lambda runs: deviation(perturbed=runs),
        (None, "a", 5, (1,), [STATE], (Deviation.split(np.ones((2, 3, 2))),)), (STATE,),
    ),
    "Deviation.whole": (Deviation.whole, (*NOT_TOKENS, X), X[None]),
    "Deviation.split": (Deviation.split, (*NOT_TOKENS, X), X[None]),
    "step": (DYNAMICS.step, (*NOT_TOKENS, X[None]), X),
    "step, t": (lambda t: DYNAMICS.step(X, t), NOT_A_SEED, 2),
    "step, sample": (lambda s: DYNAMICS.step(X, 0, s), NOT_A_SEED, 2),
    "attention": (DYNAMICS.attention, (*NOT_TOKENS, X[None]), X),
    "check_tokens": (DYNAMICS.check_tokens, (*NOT_TOKENS, X * NAN, X + INF, 0 * X), X),
    "set_threads": (dynsim.set_threads, [*NOT_WHOLE, 0, -1], None),
    "load": (dynsim.load, (*NOT_A_PATH, "no-such-file.nc"), None),
    "save": (RUN.save, (*NOT_A_PATH, "run.pkl"), None),
    "to_csv": (RUN.to_csv, NOT_A_PATH, None),
    "to_json": (RUN.to_json, NOT_A_PATH, None),
    "joined": (lambda other: joined(RUN, other), (None, *NOT_AN_OBJECT), RUN),
    **{
        f"jacobian.{name}": (
            lambda d, name=name: getattr(jacobian, name)(d, X), (None, *NOT_AN_OBJECT), DYNAMICS
        )
        for name in ("jacobian", "image", "linearise", "tangent_basis")
    },
    "predict": (lambda d: dynsim.predict(d, X), (None, *NOT_AN_OBJECT), DYNAMICS),
    "predict, x0": (lambda x: dynsim.predict(DYNAMICS, x), NOT_TOKENS, X),
    "compare": (lambda d: beside(d, X, RUN), (None, *NOT_AN_OBJECT), DYNAMICS),
    "compare, x0": (lambda x: beside(DYNAMICS, x, RUN), (*NOT_TOKENS, X + INF), X),
    "compare, trajectory": (lambda r: beside(DYNAMICS, X, r), (None, *NOT_AN_OBJECT), RUN),
    "verdict": (dynsim.verdict, (None, *NOT_AN_OBJECT), RUN),
    "collapse_rate": (dynsim.collapse_rate, (None, *NOT_AN_OBJECT), RUN),
    **{
        f"measure {name}": (measure.function, (None, "abc", 5, np.ones(3), X + 0j), X)
        for name, measure in measures.MEASURES.items()
        if measure.function is not None
    },
    **{
        f"connectivity.{name}": (getattr(connectivity, name), NOT_A_GRAPH, masks.causal(3))
        for name in ("radius", "diameter", "center_nodes", "lambda_2", "is_strongly_connected")
    },
}  # fmt: skip
#: The doors of `simulate`, at which no layer may have been computed.
SIMULATE = {
    "dynamics": (None, *NOT_AN_OBJECT),
    "x0": (*NOT_TOKENS, X * NAN, X + INF, deviation(log_size=[NAN])),
    "depth": (*NOT_A_COUNT, 10**15),
    "record": (*NOT_AN_OBJECT, ("mu",)),
    "engine": (None, *NOT_AN_OBJECT),
    "device": (5, "cuda", [1]),
    "threads": (*NOT_WHOLE, 0, -1),
    "start": NOT_A_SEED,
    "first_sample": NOT_A_SEED,
    "progress": (5, "a", [1]),
}


#: Words of Python and numpy about what they were asked to do, not about what was given.
OTHERS = (
    "unpack", "broadcast", "truth value", "could not convert", "setting an array", "sequence",
    "Maximum allowed", "core dimension", "reshape", "invalid literal",
)  # fmt: skip


def refused(enter, bad):
    """One line, of our own."""
    try:
        enter(bad)
    except ValueError as error:
        words = str(error)
    except MemoryError as error:  # a kind of its own for what is only too large
        words = str(error)
        assert isinstance(bad, int)
        assert bad > 10**9
    else:
        raise AssertionError(f"{bad!r} was taken")
    assert "\n" not in words
    assert not any(other in words for other in OTHERS), words


@pytest.mark.parametrize("door", DOORS)
def test_what_does_not_belong_is_refused_where_it_enters(door, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    enter, bad, good = DOORS[door]
    for value in bad:
        refused(enter, value)
    if good is not None:
        enter(good)
    assert not list(tmp_path.iterdir())
    dynsim.set_threads(None)


@pytest.mark.parametrize("name", SIMULATE)
def test_simulate_refuses_before_any_work(name, monkeypatch):
    def enter(value):
        return simulate(**{"dynamics": DYNAMICS, "x0": X, "depth": 2} | {name: value})

    monkeypatch.setattr("dynsim.simulation._Run", None)
    for value in SIMULATE[name]:
        refused(enter, value)
