"""The derivative of one layer, in closed form, for one state or many at once.

With S = X M X^T + 1 (X u)^T, A = softmax(S) over the mask, V = X W_V and Y = A V, one head has

    dY_ib / dX_ja = A_ij (W_ab + p_ia (v_jb - y_ib)) + delta_ij sum_k A_ik (M x_k)_a (v_kb - y_ib),

p = X M + u. The first part is what token i gets through the keys and values of token j, the second
through its own query. Heads add up; norms, skip connection and MLP follow by the chain rule. Other
kinds of attention, positions and QK-norm have dA_ij = G_ij dS_ij - A_ij sum_k B_ik dS_ik with G and
B of the kind (`dynsim.attention`), and queries and keys whose derivatives depend on the token. The
tests compare all of it with automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from dynsim._values import real_array
from dynsim.network.attention import Sigmoid, Softmax, Softpick, masked_softmax
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.mlp import ACTIVATIONS, DERIVATIVES, UNITS, MLPWeights
from dynsim.network.norms import Norm, Unit
from dynsim.network.parts import AROUND, ATTENTION_PARTS, check_plain, unusual_parts
from dynsim.network.weights import LayerWeights

__all__ = [
    "DIFFERENTIABLE",
    "image",
    "is_spherical",
    "jacobian",
    "jvp",
    "linearise",
    "tangent_basis",
    "tangent_jacobian",
]

#: Parts whose derivative is known; a hardmax jumps.
DIFFERENTIABLE = ("position", "qk_norm", Softmax, Sigmoid, Softpick, *AROUND)
#: A value and its derivative, or the derivative in one direction.
Pair = tuple[np.ndarray, np.ndarray]


def image(dynamics: AttentionDynamics, x: np.ndarray, t: int = 0) -> np.ndarray:
    """One layer on many states at once: (..., N, d) -> (..., N, d). Equals `dynamics.step`.

    Raises ValueError for a dynamics with dropout.
    """
    check_dynamics(dynamics)
    dynamics.require_deterministic("one layer as a map")
    plain = _is_plain(dynamics)

    def attend(z: np.ndarray, layer: LayerWeights) -> np.ndarray:
        if dynamics.gate.active:
            return dynamics.gated(dynamics.attention_of(z, layer, t), z, layer, t)
        if not plain:
            mixed = dynamics.attention_of(z, layer, t) @ _valued(z[..., None, :, :], layer)
            return mixed.sum(axis=-3) + layer.output_bias
        return _attended(dynamics, z, layer)[0].sum(axis=-3) + layer.output_bias

    return dynamics.compose(real_array("tokens", x), t, attend)


def jacobian(dynamics: AttentionDynamics, x: np.ndarray, t: int = 0) -> np.ndarray:
    """The derivative of layer t at tokens (..., N, d): (..., N, d, N, d).

    Entry [i, a, j, b] is the derivative of x'_ia with respect to x_jb.

    >>> from dynsim import masks
    >>> from dynsim.network import weights
    >>> mean = AttentionDynamics(masks.complete(2), weights.Identity())
    >>> jacobian(mean, np.array([[1.0], [5.0]])).reshape(2, 2)
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    return linearise(dynamics, x, t)[1]


def linearise(dynamics: AttentionDynamics, x: np.ndarray, t: int = 0) -> Pair:
    """(x', dx'/dx) of layer t: shapes (..., N, d) and (..., N, d, N, d).

    Raises ValueError for a dynamics with dropout.
    """
    check_dynamics(dynamics)
    check_plain(dynamics, "the derivative of a layer", DIFFERENTIABLE)
    dynamics.require_deterministic("the derivative of a layer")
    x = real_array("tokens", x)
    layer = dynamics.weights.layer(t, x.shape[-1])
    norm = dynamics.norm.layer(t)
    attention = _gated if dynamics.gate.active else _attention
    x, total = _sublayer(dynamics, t, norm, x, lambda z: attention(dynamics, z, layer, t))
    if not dynamics.mlp.active:
        return x, total
    mlp = dynamics.mlp.layer(t, x.shape[-1])
    norm = dynamics.mlp_norm.layer(t)
    perceptron = lambda z: _perceptron(dynamics.mlp.activation, mlp, z)  # noqa: E731
    x, last = _sublayer(dynamics, t, norm, x, perceptron)
    return x, _product(last, total)


def jvp(dynamics: AttentionDynamics, x: np.ndarray, v: np.ndarray, t: int = 0) -> Pair:
    """(x', J v): layer t and its derivative J in the direction v, all of shape (..., N, d).

    Of one state x, (N, d), v may hold several directions, (k, N, d).

    O(N^2 d + N d^2) work a state, where the whole of J has (N d)^2 entries.

    Raises ValueError for a dynamics with dropout.
    """
    check_plain(dynamics, "the derivative of a layer", DIFFERENTIABLE)
    dynamics.require_deterministic("the derivative of a layer")
    x, v = real_array("tokens", x), real_array("directions", v)
    layer = dynamics.weights.layer(t, x.shape[-1])
    attention = _gated_jvp if dynamics.gate.active else _attention_jvp
    x, v = _sublayer_jvp(
        dynamics, t, dynamics.norm.layer(t), x, v, lambda y, w: attention(dynamics, y, w, layer, t)
    )
    if not dynamics.mlp.active:
        return x, v
    mlp = dynamics.mlp.layer(t, x.shape[-1])
    perceptron = lambda *z: _perceptron_jvp(dynamics.mlp.activation, mlp, *z)  # noqa: E731
    return _sublayer_jvp(dynamics, t, dynamics.mlp_norm.layer(t), x, v, perceptron)


# --- the parts of a layer -----------------------------------------------------------------------


def _sublayer(
    dynamics: AttentionDynamics,
    t: int,
    norm: Norm,
    x: np.ndarray,
    linearised: Callable[[np.ndarray], Pair],
) -> Pair:
    """after(skip x + branch(f(before(x)))) and its derivative; linearised(z) = (f(z), df/dz)."""
    places, weights = dynamics.places(t), dynamics.residual.layer(t)
    seen = norm.apply(x) if "before" in places else x
    out, slope = linearised(seen)
    if "before" in places:
        slope = np.einsum("...iajb,...jbc->...iajc", slope, norm.derivative(x))
    if "branch" in places:
        slope = np.einsum("...iab,...ibjc->...iajc", norm.derivative(out), slope)
        out = norm.apply(out)
    out = weights.joined(x, out)
    slope = np.reshape(weights.branch, (-1, 1, 1)) * slope
    i, a = np.indices(x.shape[-2:])
    slope[..., i, a, i, a] += weights.skip
    if "after" in places:
        slope = np.einsum("...iab,...ibjc->...iajc", norm.derivative(out), slope)
        out = norm.apply(out)
    return out, slope


def _sublayer_jvp(
    dynamics: AttentionDynamics,
    t: int,
    norm: Norm,
    x: np.ndarray,
    v: np.ndarray,
    branch: Callable[[np.ndarray, np.ndarray], Pair],
) -> Pair:
    """after(skip x + branch(f(before(x)))) and its derivative in the direction v; branch(z, w) =
    (f(z), df(z) w)."""
    places, weights = dynamics.places(t), dynamics.residual.layer(t)
    out, w = branch(*(_norm_jvp(norm, x, v) if "before" in places else (x, v)))
    if "branch" in places:
        out, w = _norm_jvp(norm, out, w)
    out, w = weights.joined(x, out), weights.joined(v, w)
    return _norm_jvp(norm, out, w) if "after" in places else (out, w)


def _norm_jvp(norm: Norm, x: np.ndarray, v: np.ndarray) -> Pair:
    return norm.apply(x), norm.derivative_along(x, v)


def _attended(
    dynamics: AttentionDynamics, x: np.ndarray, layer: LayerWeights
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(Y, A, V, X M + u) of every head: (..., H, N, d) or (..., H, N, N)."""
    x = x[..., None, :, :]
    keyed = _keyed(x, layer, layer.query_bias[:, None, :])
    A = masked_softmax(keyed @ x.swapaxes(-1, -2), dynamics.allowed())
    V = _valued(x, layer)
    return A @ V, A, V, keyed


def _keyed(x: np.ndarray, layer: LayerWeights, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """x M + u of every head by the factors of M, which is d x d: (..., H, N, d)."""
    query = x @ layer.query + bias
    return query @ layer.key.swapaxes(-1, -2) if layer.key.size else query


def _valued(x: np.ndarray, layer: LayerWeights) -> np.ndarray:
    """x W_V of every head by the factors of W_V: (..., H, N, d)."""
    return x @ layer.value @ layer.output if layer.value.size else x @ layer.output


def _attention(dynamics: AttentionDynamics, x: np.ndarray, layer: LayerWeights, t: int) -> Pair:
    if not _is_plain(dynamics):
        return _attention_with_parts(dynamics, x, layer, t)
    Y, A, V, keyed = _attended(dynamics, x, layer)
    away = V[..., None, :, :] - Y[..., :, None, :]  # v_j - y_i: (..., H, N, N, d)
    slope = np.einsum("...hij,hab->...ibja", A, layer.W_V)
    slope += np.einsum("...hij,...hia,...hijb->...ibja", A, keyed, away)
    turned = np.einsum("...jb,hab->...hja", x, layer.M)  # M x_j
    own = np.einsum("...hij,...hja,...hijb->...iba", A, turned, away)
    i = np.arange(x.shape[-2])
    slope[..., i, :, i, :] += np.moveaxis(own, -3, 0)
    return Y.sum(axis=-3) + layer.output_bias, slope


def _attention_jvp(
    dynamics: AttentionDynamics, x: np.ndarray, v: np.ndarray, layer: LayerWeights, t: int
) -> Pair:
    """dY = dA V + A dV, dA_ij = A_ij (dS_ij - sum_k A_ik dS_ik), dS = dX M X^T + (X M + u) dX^T."""
    if not _is_plain(dynamics):
        return _attention_with_parts_jvp(dynamics, x, v, layer, t)
    Y, A, V, keyed = _attended(dynamics, x, layer)
    x, v = x[..., None, :, :], v[..., None, :, :]
    slope = _keyed(v, layer) @ x.swapaxes(-1, -2) + keyed @ v.swapaxes(-1, -2)
    slope = A * (slope - np.sum(A * slope, axis=-1, keepdims=True))
    moved = slope @ V + A @ _valued(v, layer)
    return Y.sum(axis=-3) + layer.output_bias, moved.sum(axis=-3)


# --- attention with positions, of other kinds, with QK-norm -------------------------------------


def _is_plain(dynamics: AttentionDynamics) -> bool:
    return not set(ATTENTION_PARTS) & set(unusual_parts(dynamics))


def _attention_with_parts(
    dynamics: AttentionDynamics, x: np.ndarray, layer: LayerWeights, t: int
) -> Pair:
    """dY_i = sum_j (dS_ij (G_ij v_j - B_ij y_i) + A_ij dv_j), dS_ij = dq_i . k_j + q_i . dk_j."""
    scores, mask = dynamics.scores_of(x, layer, t), dynamics.allowed()
    A, (G, B) = dynamics.kind.weights(scores, mask), dynamics.kind.slopes(scores, mask)
    V = _valued(x[..., None, :, :], layer)
    Y = A @ V
    query, key = dynamics.query_and_key(x, layer, t)
    of_query, of_key = _slopes_of_query_and_key(dynamics, x, layer, t)
    by_score = G[..., None] * V[..., None, :, :] - B[..., None] * Y[..., :, None, :]
    slope = np.einsum("...hij,hab->...ibja", A, layer.W_V)
    through_keys = np.einsum("...hip,...hjpa->...hija", query, of_key)
    slope += np.einsum("...hijb,...hija->...ibja", by_score, through_keys)
    own = np.einsum("...hijb,...hjp,...hipa->...iba", by_score, key, of_query, optimize=True)
    i = np.arange(x.shape[-2])
    slope[..., i, :, i, :] += np.moveaxis(own, -3, 0)
    return Y.sum(axis=-3) + layer.output_bias, slope


def _attention_with_parts_jvp(
    dynamics: AttentionDynamics, x: np.ndarray, v: np.ndarray, layer: LayerWeights, t: int
) -> Pair:
    """dY = dA V + A dV with dS = dQ K^T + Q dK^T."""
    scores, mask = dynamics.scores_of(x, layer, t), dynamics.allowed()
    A, (G, B) = dynamics.kind.weights(scores, mask), dynamics.kind.slopes(scores, mask)
    query, key = dynamics.query_and_key(x, layer, t)
    x, v = x[..., None, :, :], v[..., None, :, :]
    moved_q, moved_k = v @ layer.query, v @ layer.key if layer.key.size else v
    if dynamics.qk_norm.active:
        norm_q, norm_k = dynamics.qk_norm.layer(t).norms(query.shape[-1])
        moved_q = norm_q.derivative_along(x @ layer.query + layer.query_bias[:, None, :], moved_q)
        moved_k = norm_k.derivative_along(x @ layer.key, moved_k)
    moved_q, moved_k = dynamics.position.turned(moved_q), dynamics.position.turned(moved_k)
    slope = moved_q @ key.swapaxes(-1, -2) + query @ moved_k.swapaxes(-1, -2)
    slope = G * slope - A * np.sum(B * slope, axis=-1, keepdims=True)
    V = _valued(x, layer)
    moved = slope @ V + A @ _valued(v, layer)
    return (A @ V).sum(axis=-3) + layer.output_bias, moved.sum(axis=-3)


def _slopes_of_query_and_key(
    dynamics: AttentionDynamics, x: np.ndarray, layer: LayerWeights, t: int
) -> Pair:
    """dq_i / dx_i and dk_j / dx_j of every head, (..., H, N, p, d); of keys as they are H = 1."""
    x = x[..., None, :, :]
    (n, d), p = x.shape[-2:], layer.query.shape[2]
    W_Q = layer.query.swapaxes(1, 2)[:, None]  # (H, 1, p, d)
    W_K = layer.key.swapaxes(1, 2)[:, None] if layer.key.size else np.eye(d)[None, None]
    if dynamics.qk_norm.active:
        norm_q, norm_k = dynamics.qk_norm.layer(t).norms(p)
        W_Q = norm_q.derivative(x @ layer.query + layer.query_bias[:, None, :]) @ W_Q
        W_K = norm_k.derivative(x @ layer.key) @ W_K

    def turned(slope: np.ndarray) -> np.ndarray:  # along the axes of tokens and of p
        whole = np.broadcast_to(slope, (*slope.shape[:-3], n, p, d))
        return np.moveaxis(dynamics.position.turned(np.moveaxis(whole, -1, -3)), -3, -1)

    return turned(W_Q), turned(W_K)


# --- gates --------------------------------------------------------------------------------------


def _columns(layer: LayerWeights) -> Iterator[tuple[int, slice, LayerWeights]]:
    """(h, columns, weights): attention with these weights gives, in its first entries, these
    columns of A_h x V_h, for a layer with value matrices."""
    n_heads, d, width = layer.value.shape
    for h in range(n_heads):
        for first in range(0, width, d):
            columns = slice(first, min(first + d, width))
            output = np.zeros((n_heads, d, d))
            output[h, :, : columns.stop - first] = layer.value[h, :, columns]
            none = np.zeros((n_heads, 0, 0))
            yield h, columns, layer._replace(value=none, output=output, output_bias=np.zeros(d))


def _gated(dynamics: AttentionDynamics, x: np.ndarray, layer: LayerWeights, t: int) -> Pair:
    """sum_h (Y_h * G_h) O_h + bias with dG = G (1 - G) * (dx W_g), token by token."""
    layer = layer.with_values
    gate, i = dynamics.gate_of(layer, t), np.arange(x.shape[-2])
    shape = (*x.shape[:-1], layer.value.shape[2])
    G, W_g = gate.open(x), np.broadcast_to(gate.W, layer.value.shape)
    out, slope = layer.output_bias, np.zeros((*x.shape, *x.shape[-2:]))
    for h, columns, alone in _columns(layer):
        Y, moved = _attention(dynamics, x, alone, t)
        number, O_h = columns.stop - columns.start, layer.output[h, columns]
        Y, moved = Y[..., :number], moved[..., :number, :, :]
        g = np.broadcast_to(G[..., h, :, :], shape)[..., columns]
        out = out + (Y * g) @ O_h
        slope += np.einsum("...iqjb,...iq,qa->...iajb", moved, g, O_h, optimize=True)
        own = np.einsum("...iq,bq,qa->...iab", Y * g * (1.0 - g), W_g[h, :, columns], O_h,
                        optimize=True)  # fmt: skip
        slope[..., i, :, i, :] += np.moveaxis(own, -3, 0)
    return out, slope


def _gated_jvp(
    dynamics: AttentionDynamics, x: np.ndarray, v: np.ndarray, layer: LayerWeights, t: int
) -> Pair:
    """As `_gated`, in the direction v."""
    layer = layer.with_values
    gate, width = dynamics.gate_of(layer, t), layer.value.shape[2]
    G, turned = gate.open(x), v[..., None, :, :] @ gate.W
    G, turned = (np.broadcast_to(z, (*z.shape[:-1], width)) for z in (G, turned))
    out, w = layer.output_bias, np.zeros(np.broadcast_shapes(x.shape, v.shape))
    for h, columns, alone in _columns(layer):
        Y, moved = _attention_jvp(dynamics, x, v, alone, t)
        number, O_h = columns.stop - columns.start, layer.output[h, columns]
        g, u = G[..., h, :, columns], turned[..., h, :, columns]
        Y, moved = Y[..., :number], moved[..., :number]
        out = out + (Y * g) @ O_h
        w = w + (moved * g + Y * g * (1.0 - g) * u) @ O_h
    return out, w


def _perceptron_jvp(activation: str, mlp: MLPWeights, x: np.ndarray, v: np.ndarray) -> Pair:
    W_1, b_1, W_2, b_2 = mlp
    hidden = x @ W_1 + b_1
    moved = DERIVATIVES[activation](hidden) * (v @ W_1)
    return ACTIVATIONS[activation](hidden) @ W_2 + b_2, moved @ _behind(activation, W_2)


def _perceptron(activation: str, mlp: MLPWeights, x: np.ndarray) -> Pair:
    W_1, b_1, W_2, b_2 = mlp
    hidden = x @ W_1 + b_1
    behind = _behind(activation, W_2)
    own = np.einsum("bm,...im,ma->...iab", W_1, DERIVATIVES[activation](hidden), behind)
    slope = np.zeros((*x.shape, *x.shape[-2:]))
    i = np.arange(x.shape[-2])
    slope[..., i, :, i, :] = np.moveaxis(own, -3, 0)
    return ACTIVATIONS[activation](hidden) @ W_2 + b_2, slope


def _behind(activation: str, W_2: np.ndarray) -> np.ndarray:
    """What the derivatives by the hidden units meet: of a gate and what it gates the same rows."""
    return np.concatenate([W_2] * UNITS[activation])


def _product(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    n, d = outer.shape[-2:]
    square = (*outer.shape[:-4], n * d, n * d)
    return (outer.reshape(square) @ inner.reshape(square)).reshape(outer.shape)


# --- on the tangent space -----------------------------------------------------------------------


def tangent_basis(dynamics: AttentionDynamics, x: np.ndarray) -> np.ndarray:
    """Orthonormal directions in which each token of the state x, (N, d), can move: (N, d, m).

    m = d - 1 and the tangent plane of the unit sphere for `dynsim.norms.Unit` after the layer; all
    of space otherwise. From Householder reflections, so that tokens along an axis get the other
    axes, exactly: triangular Jacobians stay triangular.
    """
    x = real_array("tokens", x)
    n, d = x.shape
    if not is_spherical(dynamics):
        return np.broadcast_to(np.eye(d), (n, d, d))
    return np.linalg.qr(x[..., None], mode="complete")[0][..., 1:]


def is_spherical(dynamics: AttentionDynamics) -> bool:
    """True when every layer ends by scaling tokens to the unit sphere."""
    check_dynamics(dynamics)
    last = dynamics.mlp_norm if dynamics.mlp.active else dynamics.norm
    return all(isinstance(norm, Unit) for norm in last.each) and dynamics.ends_in_norm


def tangent_jacobian(dynamics: AttentionDynamics, x: np.ndarray, t: int = 0) -> np.ndarray:
    """The derivative of layer t at x, (N, d), within the directions of `tangent_basis` at x.

    (N m, N m), tokens in order: block triangular under a causal mask. Where x' = x its eigenvalues
    are the multipliers; where x' = -x they are those of the map -F.
    """
    basis = tangent_basis(dynamics, x)
    inner = np.einsum("iap,iajb,jbq->ipjq", basis, jacobian(dynamics, x, t), basis, optimize=True)
    return inner.reshape(basis.shape[0] * basis.shape[2], -1)
