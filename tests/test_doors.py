"""Wherever an array or a number enters, what is not real numbers is refused with one sentence."""

import warnings

import numpy as np
import pytest

import dynsim
from dynsim import (
    AttentionDynamics,
    basins,
    continuation,
    geometry,
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
from dynsim._values import real_array, real_number
from dynsim.equilibria import transient as equilibrium_transient
from dynsim.equilibria.design import design_value_matrix
from dynsim.equilibria.stability import approach, basin_radius, stability
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
    "transient": (np.ones((3, 2)) / 2**0.5, lambda x: equilibrium_transient(LAYER, x)),
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
