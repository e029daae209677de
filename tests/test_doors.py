"""Wherever an array or a number enters, what is not real numbers is refused with one sentence."""

import math
import warnings

import networkx as nx
import numpy as np
import pytest

import dynsim
from dynsim import (
    AttentionDynamics,
    basins,
    bounds,
    connectivity,
    continuation,
    deviation,
    equilibria,
    gaussian_keys,
    geometry,
    gram,
    jacobian,
    lyapunov,
    masks,
    measures,
    mlp,
    norms,
    predictions,
    selectability,
    tokens,
    transient,
    weights,
)
from dynsim._memory import TooLarge
from dynsim._values import real_array, real_number, shown, whole
from dynsim.equilibria.design import design_value_matrix
from dynsim.equilibria.stability import approach, basin_radius, stability
from dynsim.equilibria.stability import transient as transient_at
from dynsim.geometry import decomposition, ellipsoid

X = np.array([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0]])
I2 = np.eye(2)
LAYER = AttentionDynamics(masks.causal(3), weights.Fixed(0.5 * I2, I2), norms.Unit())
PLAIN = AttentionDynamics(masks.complete(3), weights.Fixed(0.5 * I2, 0.9 * I2))
LN = norms.LayerNorm()
ELLIPSOID = ellipsoid.image_ellipsoid([3.0, 4.0])


def layer_weights(**changed):
    return weights.LayerWeights.from_matrices(I2[None], I2[None])._replace(**changed)


def perceptron(**changed):
    given = mlp.MLPWeights(I2, np.zeros(2), I2, np.zeros(2))
    return mlp.FixedMLP(given._replace(**changed))


def file_of(suffix):
    def read(array, tmp_path):
        path = tmp_path / f"x0.{suffix}"
        np.save(path, array) if suffix == "npy" else np.savez(path, x0=array)
        return tokens.from_file(path)

    return read


def checked(norm):
    norm.check(2)
    return norm


#: Every door for an array: what enters, as it should be, and what is done with it.
DOORS = {
    "simulate": (X, lambda x: dynsim.simulate(LAYER, x, 2)),
    "simulate, reference": (X, lambda x: dynsim.simulate(LAYER, x, 2, engine="reference")),
    "predict": (X, lambda x: dynsim.predict(LAYER, x)),
    "transversal_growth": (
        X[0], lambda c: predictions.transversal_growth(LAYER, c, layers=2)
    ),
    "cubic_step, z": (X, lambda z: predictions.cubic_step(PLAIN, z, X[0])),
    "cubic_step, token": (X[0], lambda c: predictions.cubic_step(PLAIN, X, c)),
    "step": (X, LAYER.step),
    "attention": (X, LAYER.attention),
    "check_tokens": (X, LAYER.check_tokens),
    "Fixed, M": (I2, lambda a: weights.Fixed(a, I2)),
    "Fixed, W_V": (I2, lambda a: weights.Fixed(I2, a)),
    "from_matrices, M": (I2[None], lambda a: weights.LayerWeights.from_matrices(a, I2[None])),
    "from_matrices, W_V": (I2[None], lambda a: weights.LayerWeights.from_matrices(I2[None], a)),
    **{
        f"Layers, {field}": (
            getattr(layer_weights(), field),
            lambda a, field=field: weights.Layers((layer_weights(**{field: a}),)),
        )
        for field in weights.LayerWeights._fields
    },
    "FromArray": (I2, weights.FromArray),
    "Diagonal": (np.ones(2), weights.Diagonal),
    "mix": (
        np.ones(1), lambda a: weights.Weights(mix=a)
    ),
    **{
        f"FixedMLP, {field}": (
            getattr(perceptron().weights, field), lambda a, field=field: perceptron(**{field: a})
        )
        for field in mlp.MLPWeights._fields
    },
    "RMSNorm, gain": (np.ones(2), lambda a: checked(norms.RMSNorm(a))),
    "LayerNorm, gain": (np.ones(2), lambda a: checked(norms.LayerNorm(a))),
    "LayerNorm, bias": (np.ones(2), lambda a: checked(norms.LayerNorm(1.0, a))),
    "Norm.apply": (X, norms.Unit().apply),
    "Norm.derivative": (X, norms.Unit().derivative),
    "Norm.undefined": (X, norms.Unit().undefined),
    "jacobian": (X, lambda x: jacobian.jacobian(LAYER, x)),
    "image": (X, lambda x: jacobian.image(LAYER, x)),
    "tangent_basis": (X, lambda x: jacobian.tangent_basis(LAYER, x)),
    "basins": (X[None], lambda x: basins.limit_sets(LAYER, x, depth=64)),
    "continuation": (np.tile([1.0, 0.0], (3, 1)), lambda x: follow(x)),
    "lyapunov": (X, lambda x: lyapunov.spectrum(LAYER, x, layers=2, discard=0)),
    "transversal exponent": (
        X[0], lambda c: lyapunov.transversal(LAYER, c, layers=2, discard=0)
    ),
    "stability": (np.ones((3, 2)) / 2**0.5, lambda x: stability(LAYER, x)),
    "transient": (np.ones((3, 2)) / 2**0.5, lambda x: transient_at(LAYER, x)),
    "basin_radius": (
        np.ones((3, 2)) / 2**0.5, lambda x: basin_radius(LAYER, x, samples=1, depth=2)
    ),
    "approach": (
        np.ones((3, 2)) / 2**0.5, lambda x: approach(LAYER, x, samples=1, depth=4)
    ),
    "design, X": (I2, lambda x: design_value_matrix(x, masks.causal(2))),
    "design, scores": (I2, lambda a: design_value_matrix(I2, masks.causal(2), scores=a)),
    "design, norms": (np.ones(2), lambda a: design_value_matrix(I2, masks.causal(2), norms=a)),
    "decompose": (X, decomposition.decompose),
    "angle_to_ones": (X, decomposition.angle_to_ones),
    "closed form": (X, decomposition.layer_norm_closed_form),
    "closed form, gain": (np.ones(2), lambda a: decomposition.layer_norm_closed_form(X, a)),
    "closed form, bias": (np.ones(2), lambda a: decomposition.layer_norm_closed_form(X, 1.0, a)),
    "ellipsoid, gain": (np.array([3.0, 4.0]), ellipsoid.image_ellipsoid),
    "ellipsoid, bias": (np.ones(2), lambda a: ellipsoid.image_ellipsoid([3.0, 4.0], a)),
    **{
        f"ellipsoid, {name}": (np.zeros(2), lambda y, name=name: getattr(ELLIPSOID, name)(y))
        for name in ("coordinates", "off_plane", "level", "contains", "distance_to_surface")
    },
    "changes": (X, lambda x: geometry.changes(LN, x)),
    "survey": (X, lambda x: geometry.survey("X", norms.LayerNorm(np.array([1.0, 2.0])), x)),
    "selectable": (X, selectability.selectable),
    "selectable, biases": (np.zeros(3), lambda b: selectability.selectable(X, biases=b)),
    "margins": (X, selectability.margins),
    "unselectable_fraction": (X, selectability.unselectable_fraction),
    "transient_growth": (0.5 * I2, lambda a: transient.transient_growth(a, 10)),
    "kreiss_constant": (0.5 * I2, transient.kreiss_constant),
    **{
        f"measure {name}": (X, measure.function)
        for name, measure in measures.MEASURES.items()
        if measure.function is not None
    },
    "singular_values": (X, measures.singular_values),
}  # fmt: skip

#: Every door for one number.
NUMBERS = {
    "skip": lambda a: AttentionDynamics(masks.causal(3), weights.Identity(), skip=a),
    "jordan": weights.Jordan,
    "gaussian": weights.Gaussian,
    "d_qk": lambda a: weights.Weights(d_qk=a),
    "sigma of an MLP": lambda a: mlp.GaussianMLP(sigma=a),
    "eps, RMSNorm": lambda a: checked(norms.RMSNorm(eps=a)),
    "eps, LayerNorm": lambda a: checked(norms.LayerNorm(eps=a)),
    "gap": lambda a: selectability.selectable(X, gap=a),
    "bound": lambda a: selectability.selectable(X, bound=a),
}

BAD = {
    "complex": (lambda a: a + 0j, "complex128; give the real part"),
    "imaginary": (lambda a: a + 1e-3j, "complex128; give the real part"),
    "boolean": (lambda a: a != 0, "bool; write 1.0 and 0.0"),
    "objects": (lambda a: a.astype(object), "object; give integers or floating-point numbers"),
    "strings": (lambda a: a.astype(str), r"<U\d+; give integers or floating-point numbers"),
    "longdouble": (lambda a: a.astype(np.longdouble), r"round to float64 with astype"),
}


def follow(x):
    def family(p):
        return AttentionDynamics(masks.causal(3), weights.Fixed(p * I2, I2), norms.Unit())

    try:
        continuation.continue_equilibrium(family, x, 0.5, 0.6)
    except ValueError as error:
        if "multiplier is 1" not in str(error):
            raise


@pytest.mark.parametrize("door", DOORS)
def test_real_arrays_go_in(door):
    array, enter = DOORS[door]
    enter(array)
    enter(np.asarray(array, np.float32))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("door", DOORS)
def test_other_arrays_are_refused(door, bad):
    array, enter = DOORS[door]
    spoil, words = BAD[bad]
    if bad == "longdouble" and np.dtype(np.longdouble).itemsize == 8:
        pytest.skip("longdouble is float64 here")
    if bad == "longdouble" and door.startswith("Norm."):
        assert enter(spoil(array)).dtype in (np.longdouble, bool)  # nothing is rounded
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=f"must hold real numbers; got .*{words}"):
            enter(spoil(array))


@pytest.mark.parametrize("bad", [1j, 1 + 1e-30j, True, "1", [1.0], object()])
@pytest.mark.parametrize("door", NUMBERS)
def test_other_numbers_are_refused(door, bad):
    NUMBERS[door](0.5)
    NUMBERS[door](1)
    with pytest.raises(ValueError, match=r"must hold real numbers|is one number"):
        NUMBERS[door](bad)


@pytest.mark.parametrize("bad", ["complex", "boolean", "strings"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_files_of_other_arrays_are_refused(suffix, bad, tmp_path):
    file_of(suffix)(X, tmp_path)
    with pytest.raises(ValueError, match=r"x0\.np.: array.* must hold real numbers"):
        file_of(suffix)(BAD[bad][0](X), tmp_path)


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


# --- whole numbers, names, switches and objects ---------------------------------------------------

NEAR = np.ones((3, 2)) / 2**0.5
RUN = dynsim.simulate(LAYER, X, 8)
RANDOM = AttentionDynamics(masks.causal(3), weights.Weights())
DROPPING = AttentionDynamics(masks.causal(3), weights.Weights(), dropout=dynsim.Dropout(0.1))
JORDAN, PAIR = equilibria.jordan_dynamics(2, 3.0), equilibria.jordan_family(2, 3.0, 2)[0]
ZEROS = np.zeros((1, 2)), X[None], np.zeros(1)

#: Every door for a whole number: the least that goes in, one that does, and what is done with it.
WHOLE = {
    **{
        f"masks.{make.__name__}": (1, 4, make)
        for make in {**masks.MASKS}.values()
    },
    "window": (1, 2, lambda v: masks.local(4, v)),
    "causal window": (1, 2, lambda v: masks.causal_local(4, v)),
    "ring's window": (1, 2, lambda v: masks.ring(5, v)),
    "prefix": (1, 2, lambda v: masks.prefix(4, v)),
    "sinks": (1, 2, lambda v: masks.sinks(4, 1, v)),
    "dilation": (1, 2, lambda v: masks.dilated(5, 1, v)),
    "stride of a mask": (1, 2, lambda v: masks.strided(4, 1, v)),
    "block": (1, 2, lambda v: masks.block_sparse(4, v)),
    "random tokens": (0, 2, lambda v: masks.bigbird(4, random=v)),
    "global tokens": (0, 2, lambda v: masks.bigbird(4, sinks=v)),
    "bigbird's seed": (0, 2, lambda v: masks.bigbird(4, seed=v)),
    "samples": (1, 2, lambda v: tokens.gaussian(v, 3, 2)),
    "tokens": (1, 2, lambda v: tokens.gaussian(1, v, 2)),
    "dimensions": (1, 2, lambda v: tokens.sphere(1, 3, v)),
    "heads": (1, 2, lambda v: weights.Weights(n_heads=v)),
    "width": (1, 2, lambda v: mlp.GaussianMLP(width=v)),
    "stride": (1, 2, lambda v: dynsim.Record(stride=v)),
    "states": (0, 2, lambda v: dynsim.Record(states=v)),
    "depth": (1, 2, lambda v: dynsim.simulate(LAYER, X, v)),
    "start": (0, 2, lambda v: dynsim.simulate(LAYER, X, 1, start=v)),
    "first sample": (0, 2, lambda v: dynsim.simulate(LAYER, X, 1, first_sample=v)),
    "threads": (1, 1, lambda v: dynsim.simulate(LAYER, X, 1, threads=v)),
    "layer, Weights": (0, 2, lambda v: weights.Weights().layer(v, 2)),
    "layer, Layers": (0, 2, lambda v: LAYER.weights.layer(v, 2)),
    "layer, step": (0, 2, lambda v: LAYER.step(X, v)),
    "layer, attention": (0, 2, lambda v: LAYER.attention(X, v)),
    "layer, jacobian": (0, 2, lambda v: jacobian.jacobian(LAYER, X, v)),
    "layer, image": (0, 2, lambda v: jacobian.image(LAYER, X, v)),
    "layer, cubic law": (0, 2, lambda v: predictions.cubic_step(PLAIN, X, X[0], v)),
    "sample": (0, 2, lambda v: DROPPING.step(X, 0, v)),
    "start of a prediction": (0, 2, lambda v: dynsim.predict(LAYER, X, v)),
    "layers of growth": (1, 2, lambda v: predictions.transversal_growth(LAYER, X[0], v)),
    "depth of bounds": (1, 2, lambda v: bounds.mu_bounds(PLAIN, X, v)),
    "start of bounds": (0, 2, lambda v: bounds.mu_bounds(PLAIN, X, 2, v)),
    "window of bounds": (1, 2, lambda v: bounds.mu_bounds(PLAIN, X, 2, window=v)),
    "depth of a width limit": (1, 2, lambda v: gram.infinite_width(RANDOM, X, v)),
    "angles": (1, 2, basins.circle_pairs),
    "dimension of starts": (1, 2, lambda v: basins.basins(LAYER, 1, dim=v, depth=64)),
    "largest power": (1, 2, lambda v: transient.transient_growth(0.5 * I2, v)),
    "layers of exponents": (1, 2, lambda v: lyapunov.spectrum(LAYER, X, layers=v, discard=0)),
    "discarded layers": (0, 2, lambda v: lyapunov.spectrum(LAYER, X, layers=2, discard=v)),
    "exponents": (
        1, 2, lambda v: lyapunov.spectrum(LAYER, X, layers=2, discard=0, count=v)
    ),
    "tokens of jordan": (1, 2, lambda v: equilibria.jordan_dynamics(v, 1.0)),
    "tokens of the family": (1, 2, lambda v: equilibria.jordan_family(v, 9.0, 1)),
    "rank of the family": (1, 2, lambda v: equilibria.jordan_family(4, 9.0, v)),
    "samples around": (
        1, 2, lambda v: equilibria.approach(LAYER, NEAR, samples=v, depth=4)
    ),
    "depth of an approach": (
        4, 5, lambda v: equilibria.approach(LAYER, NEAR, samples=1, depth=v)
    ),
    "keys": (1, 4, lambda v: gaussian_keys.expected_unselectable(v, 2)),
}  # fmt: skip

#: Every door for a seed, which may be as large as one likes.
SEEDS = {
    "tokens": lambda v: tokens.sphere(1, 3, 2, v),
    "weights": lambda v: weights.Weights(seed=v),
    "mlp": lambda v: mlp.GaussianMLP(seed=v),
    "dropout": lambda v: dynsim.Dropout(0.1, seed=v),
    "exponents": lambda v: lyapunov.spectrum(LAYER, X, layers=1, discard=0, seed=v),
    "approach": lambda v: equilibria.approach(LAYER, NEAR, samples=1, depth=4, seed=v),
}

NOT_WHOLE = [1.5, 2.0, np.float64(2), math.nan, math.inf, True, "3", [3], (), 1j, object(), int]
NOT_WHOLE += [np.array([2, 3]), -(10**400)]

#: Every door for an object, a name, a switch or a path: what is right, and what is done with it.
OBJECTS = {
    "mask": (masks.causal(3), lambda v: AttentionDynamics(v, weights.Identity())),
    "weights": (weights.Identity(), lambda v: AttentionDynamics(masks.causal(3), v)),
    "norm": (norms.Unit(), lambda v: AttentionDynamics(LAYER.mask, LAYER.weights, v)),
    "placement": (
        "pre", lambda v: AttentionDynamics(LAYER.mask, LAYER.weights, placement=v)
    ),
    "mlp": (mlp.NoMLP(), lambda v: AttentionDynamics(LAYER.mask, LAYER.weights, mlp=v)),
    "dropout": (
        dynsim.Dropout(), lambda v: AttentionDynamics(LAYER.mask, LAYER.weights, dropout=v)
    ),
    "scores": (weights.Zero(), lambda v: weights.Weights(scores=v)),
    "value": (weights.Zero(), lambda v: weights.Weights(value=v)),
    "shared": (False, lambda v: weights.Weights(shared=v)),
    "shared, MLP": (np.True_, lambda v: mlp.GaussianMLP(shared=v)),
    "d_qk": (2, lambda v: weights.Weights(d_qk=0 if v is None else v)),
    "beta": (0.5, lambda v: weights.Weights(beta=v)),
    "sharpened": (0.5, LAYER.weights.sharpened),
    "sharpened layer": (0.5, LAYER.weights.layer(0, 2).sharpened),
    "mix": ([1.0], lambda v: weights.Weights(mix="none" if v is None else v)),
    "Layers": (LAYER.weights.entries, weights.Layers),
    "a layer": (LAYER.weights.entries[0], lambda v: weights.Layers((v,))),
    "FixedMLP": (perceptron().weights, mlp.FixedMLP),
    "activation": ("relu", lambda v: mlp.GaussianMLP(activation=v)),
    "dynamics": (LAYER, lambda v: dynsim.simulate(v, X, 1)),
    "x0": (X.tolist(), lambda v: dynsim.simulate(LAYER, v, 1)),
    "record": (
        dynsim.Record(), lambda v: dynsim.simulate(LAYER, X, 1, record=0 if v is None else v)
    ),
    "engine": ("reference", lambda v: dynsim.simulate(LAYER, X, 1, engine=v)),
    "progress": (
        lambda t: None, lambda v: dynsim.simulate(LAYER, X, 1, progress=0 if v is None else v)
    ),
    "measures": (["rank"], lambda v: dynsim.Record(measures="rank" if v is None else v)),
    "measure": ("rank", lambda v: dynsim.Record(measures=(v,))),
    "self-loops": (True, lambda v: masks.from_array(I2, self_loops=v)),
    "name of a mask": ("mine", lambda v: masks.from_array(I2, v)),
    "place of dropout": (
        "mlp", lambda v: dynsim.Dropout(0.1).scaled(X, v, 0, 0)
    ),
    **{
        f"connectivity.{name}": (masks.causal(3), getattr(connectivity, name))
        for name in (
            "center_nodes", "radius", "diameter", "eccentricities", "facts", "lambda_2",
            "uniform_walk", "is_strongly_connected", "is_quasi_strongly_connected",
        )
    },
    "deviation_walk": (masks.causal(3), transient.deviation_walk),
    "predict": (LAYER, lambda v: dynsim.predict(v, X)),
    "transversal_growth": (LAYER, lambda v: predictions.transversal_growth(v, X[0], 2)),
    "cubic_step": (PLAIN, lambda v: predictions.cubic_step(v, X, X[0])),
    "mu_bounds": (PLAIN, lambda v: bounds.mu_bounds(v, X, 2)),
    "infinite_width": (RANDOM, lambda v: gram.infinite_width(v, X, 2)),
    "collapse_rate": (RUN, dynsim.collapse_rate),
    "verdict": (RUN, dynsim.verdict),
    "compare_with_theory": (LAYER, lambda v: dynsim.compare_with_theory(v, X, RUN)),
    "compare_with_theory, trajectory": (RUN, lambda v: dynsim.compare_with_theory(LAYER, X, v)),
    "jacobian": (LAYER, lambda v: jacobian.jacobian(v, X)),
    "image": (LAYER, lambda v: jacobian.image(v, X)),
    "tangent_basis": (LAYER, lambda v: jacobian.tangent_basis(v, X)),
    "lyapunov": (LAYER, lambda v: lyapunov.spectrum(v, X, layers=1, discard=0)),
    "basins": (LAYER, lambda v: basins.limit_sets(v, X[None], depth=64)),
    "stability": (LAYER, lambda v: equilibria.stability(v, NEAR)),
    "certify": (JORDAN, lambda v: equilibria.certify(v, PAIR)),
    "changes": (LN, lambda v: geometry.changes(v, X)),
    "survey": (norms.LayerNorm([1.0, 2.0]), lambda v: geometry.survey("X", v, X)),
    "center of a deviation": (ZEROS[0], lambda v: deviation.Deviation(v, *ZEROS[1:])),
    "shape of a deviation": (
        ZEROS[1], lambda v: deviation.Deviation(ZEROS[0], v, ZEROS[2])
    ),
    "size of a deviation": (ZEROS[2], lambda v: deviation.Deviation(*ZEROS[:2], v)),
    "what was observed of it": (
        np.zeros((1, 3)), lambda v: deviation.Deviation(*ZEROS, 0 if v is None else v)
    ),
    "perturbed": ((), lambda v: deviation.Deviation(*ZEROS, None, v)),
    "tokens of a deviation": (X[None], deviation.Deviation.split),
    "whole tokens of one": (X[None], deviation.Deviation.whole),
    "state of a norm": (
        deviation.Deviation.split(X[None]), lambda v: deviation.normalised(v, norms.Unit())
    ),
}  # fmt: skip

NO_OBJECTS = [None, -1.5, "x", ["a"], object(), {"a": 1}, np.array(["a"]), 1j, math.nan, 10**5000]
NO_OBJECTS += [norms.Unit, dynsim]

#: What a door takes of these all the same.
FINE = [("name of a mask", "x"), ("progress", norms.Unit)]

#: Doors for the path of a file.
PATHS = {"mask": masks.from_file, "tokens": tokens.from_file, "trajectory": dynsim.load}


def refused(enter, bad):
    """The words with which a door refuses; anything but a ValueError is an error of this test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError) as error:
            enter(bad)
    words = str(error.value)
    assert "\n" not in words
    assert 0 < len(words) < 500
    return words


@pytest.mark.parametrize("door", WHOLE)
def test_whole_numbers(door):
    least, good, enter = WHOLE[door]
    for number in (good, np.int32(good)):
        enter(number)
    for bad in (*NOT_WHOLE, least - 1):
        words = refused(enter, bad)
        assert "whole number" in words or "lies in" in words or "at least one neighbour" in words
        assert shown(bad) in words


@pytest.mark.parametrize("door", WHOLE)
def test_huge_numbers_are_refused_before_any_work(door):
    with pytest.raises((ValueError, TooLarge), match=r"at most|lies in|smaller than|GiB"):
        WHOLE[door][2](10**400)


@pytest.mark.parametrize("door", SEEDS)
def test_seeds(door):
    enter = SEEDS[door]
    for good in (0, np.int64(3), 2**200):
        enter(good)
    for bad in (*NOT_WHOLE, None, -1):
        assert "seed" in refused(enter, bad)


@pytest.mark.parametrize("door", OBJECTS)
def test_objects_names_and_switches(door):
    good, enter = OBJECTS[door]
    enter(good)
    for bad in NO_OBJECTS:
        if not any(door == name and bad is fine for name, fine in FINE):
            refused(enter, bad)


@pytest.mark.parametrize("door", PATHS)
def test_paths(door, tmp_path):
    for bad in (*NO_OBJECTS, tmp_path / "none.npy", b"x"):
        refused(PATHS[door], bad)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AttentionDynamics(nx_graph(), weights.Identity()), "networkx.DiGraph"),
        (lambda: LAYER.weights.sharpened(-1.0), "not negative"),
        (lambda: LAYER.weights.layer(0, 2).sharpened(math.nan), "not negative"),
        (lambda: weights.Weights(mix=(math.nan,)), "one finite weight per head"),
        (lambda: weights.Weights(mix=((1.0,),)), "one finite weight per head"),
        (lambda: weights.Weights(mix=()), "one finite weight per head"),
        (lambda: weights.Weights(value=weights.FromArray(np.ones((2, 1, 2, 2)))).layer(2, 2), "2"),
        (lambda: weights.Layers(LAYER.weights.entries * 2).layer(2, 2), "asked for layer 2"),
        (lambda: weights.Layers(LAYER.weights.entries * 2).layer(-1, 2), "at least 0"),
        (lambda: weights.Layers(()), "got none"),
        (lambda: norms.LayerNorm(math.nan), "finite"),
        (lambda: norms.LayerNorm(1.0, [0.0, math.inf]), "finite"),
        (lambda: norms.LayerNorm(eps=-1.0), "not negative"),
        (lambda: norms.RMSNorm(eps=None), "real numbers"),
        (lambda: norms.RMSNorm(eps=math.inf), "not negative"),
        (lambda: perceptron(b_1=np.zeros(3)), r"W_1 \(d, m\)"),
        (lambda: perceptron(W_1=np.zeros(3)), r"W_1 \(d, m\)"),
        (lambda: perceptron(W_1=np.float64(3)), r"W_1 \(d, m\)"),
        (lambda: perceptron(W_2=np.full((2, 2), math.nan)), "finite"),
        (lambda: mlp.GaussianMLP(sigma=math.nan), "positive and finite"),
        (lambda: dynsim.Dropout(1.0), "probability"),
        (lambda: dynsim.Dropout(math.nan), "probability"),
        (lambda: deviation.Deviation(np.zeros((2, 2)), X[None], np.zeros(1)), "samples"),
        (lambda: deviation.Deviation(np.zeros((1, 3)), X[None], np.zeros(1)), "samples"),
        (lambda: deviation.Deviation(*ZEROS, None, (X,)), "entry of perturbed"),
        (
            lambda: deviation.Deviation(*ZEROS, None, (deviation.Deviation.split(X[None, :2]),)),
            "of the same shape",
        ),
        (
            lambda: dynsim.simulate(
                LAYER, deviation.Deviation(*ZEROS[:2], np.array([math.nan])), 1, engine="logscale"
            ),
            "found NaN",
        ),
        (
            lambda: dynsim.simulate(
                LAYER, deviation.Deviation(*ZEROS[:2], np.array([math.inf])), 1, engine="logscale"
            ),
            "finite",
        ),
        (lambda: dynsim.simulate(LAYER, np.zeros((2, 0, 2)), 1), "none of them 0"),
        (lambda: dynsim.simulate(LAYER, X[:2], 1), "mask is for 3 tokens"),
        (lambda: dynsim.simulate(LAYER, np.full((3, 2), math.nan), 1), "finite"),
        (lambda: dynsim.simulate(LAYER, X, 1, device=3), "device"),
        (lambda: basins.basins(LAYER, 1, dim=7), "weights are for dimension 2; got dim=7"),
        (lambda: dynsim.collapse_rate(RUN, power=math.nan), "power of t is a finite number"),
        (lambda: dynsim.collapse_rate(RUN, power=math.inf), "power of t is a finite number"),
    ],
)
def test_wrong_shapes_and_values(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def nx_graph():
    return nx.Graph([(0, 1)])


def test_values_are_shown_in_one_short_line():
    assert shown(3) == "3"
    assert shown(np.eye(2)) == "array([[1., 0.], [0., 1.]])"
    assert len(shown("x" * 1000)) == 80
    assert shown(1 << 20_000) == "a number of 20001 bits"
    with pytest.raises(ValueError, match="at least 1 and at most 5; got 6"):
        whole("number", 6, least=1, most=5)
