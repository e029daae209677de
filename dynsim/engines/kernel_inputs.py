"""A dynamics in what the kernels take: weights of many layers, the norm, and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dynsim.kernels.record import aligned
from dynsim.network.attention import NoQKNorm, QKNorm
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.norms import ElementwiseNorm, Norm, NormSwitches
from dynsim.network.positions import RoPE
from dynsim.network.weights import LayerArrays, LayerWeights

__all__ = ["ScoreParts", "in_panels", "padded", "parts", "score_parts", "settings", "stacked"]


#: What kernels call the functions of element-wise norms; 0 is the formula of all other norms.
_FUNCTIONS = {"tanh": 1, "erf": 2}


def settings(
    dynamics: AttentionDynamics,
    weights: LayerArrays,
    norm: Norm,
    n: int,
    d: int,
    columns: int,
    t: int = 0,
    systems: int = 1,
) -> dict[str, Any]:
    """The fields of the kernels' records that all arrangements share, for layers like layer t.

    Gain and bias, and the biases of `weights`, have `columns` entries. All layers of the first of
    several systems come first in `weights`.
    """
    if isinstance(norm, ElementwiseNorm):
        function, factor, shift = _FUNCTIONS[norm.function], float(norm.a), float(norm.s)
        numbers = NormSwitches(True, False, factor, shift, norm.gain, norm.bias)
    else:
        function, numbers = 0, norm.switches(d)
    places = dynamics.places(t) if numbers.active else ()
    residual = dynamics.residual.layer(t)
    gain, bias = np.zeros((2, columns), weights.query.dtype)
    gain[:d], bias[:d] = numbers.gain, numbers.bias
    given, heads, _, p = weights.query.shape
    return {
        "n": n, "d": d, "p": p, "v": weights.output.shape[2], "heads": heads,
        "systems": systems, "given": given // systems,
        "columns": columns, "biased": bool(weights.query_bias.any()),
        "has_keys": weights.key.size > 0, "has_values": weights.value.size > 0,
        "before": "before" in places, "branch": "branch" in places, "after": "after" in places,
        "centre": bool(numbers.centre), "function": function, "scale": float(numbers.scale),
        "shift": float(numbers.shift),
        "inverse_size": 0.0 if function else _inverse_size(numbers, places),
        "skip": float(residual.skip), "weight": float(residual.branch), "gain": gain, "bias": bias,
        "start": 0, "layers": 1, "samples": 1, "wanted": False, "ordered": False,
    }  # fmt: skip


class ScoreParts(NamedTuple):
    """Positions, QK-norm and sinks as the kernels take them.

    weights : with the two halves of queries and keys apart, where they are turned
    fields : settings and arrays that all arrangements share
    by_key : arrays along the numbers of a key: gains (p,), cosines and sines (n, half)
    """

    weights: LayerArrays
    fields: dict[str, Any]
    by_key: dict[str, np.ndarray]

    @property
    def any(self) -> bool:
        """Whether the kernel with these parts is needed."""
        names = "normed", "turned", "has_biases", "has_sinks"
        return any(self.fields[name] for name in names)


def score_parts(
    dynamics: AttentionDynamics, weights: LayerArrays, qk_norm: QKNorm | NoQKNorm, n: int, w: int
) -> ScoreParts:
    """Those of a dynamics; halves of queries and keys are padded to a multiple of w numbers."""
    position, kind, dtype = dynamics.position, dynamics.kind, weights.query.dtype
    heads, p = weights.query.shape[1], weights.query.shape[3]
    biases = position.biases(n, heads)
    sink = getattr(kind, "sink", None)
    fields: dict[str, Any] = {
        "normed": qk_norm.active, "turned": position.turns, "half": 0, "qk_shift": 0.0,
        "has_biases": biases is not None, "bias_row": 2 * n - 1, "has_sinks": sink is not None,
    }  # fmt: skip
    by_key = {}
    if biases is not None:
        fields["biases"] = biases.astype(dtype)
    if sink is not None:
        fields["sinks"] = np.ascontiguousarray(np.broadcast_to(np.asarray(sink, dtype), heads))
    if isinstance(qk_norm, QKNorm):
        query_gain, key_gain, fields["qk_shift"] = qk_norm.factors(p)
        by_key = {"query_gain": query_gain.astype(dtype), "key_gain": key_gain.astype(dtype)}
    if isinstance(position, RoPE):
        by_key = {name: _halves(gain, w) for name, gain in by_key.items()}
        angles = padded(position.angles(n, p), w)
        by_key |= {"cosines": np.cos(angles).astype(dtype), "sines": np.sin(angles).astype(dtype)}
        fields["half"] = angles.shape[1]
        weights = weights._replace(
            **{name: _halves(getattr(weights, name), w) for name in ("query", "query_bias", "key")}
        )
    return ScoreParts(weights, fields, by_key)


def _halves(array: np.ndarray, w: int) -> np.ndarray:
    """The first and the second half of the last axis, each padded with zeros to a multiple of w."""
    first, second = np.split(array, 2, axis=-1)
    return np.concatenate([padded(first, w), padded(second, w)], axis=-1)


def _inverse_size(numbers: NormSwitches, places: Sequence[str]) -> float:
    """1 / |token| after a layer where a norm makes all tokens equally long, else 0."""
    gain = np.abs(np.atleast_1d(numbers.gain))
    alike = not numbers.shift and not np.any(numbers.bias) and gain.min() == gain.max() > 0
    return 1.0 / (numbers.scale * float(gain[0])) if "after" in places and alike else 0.0


def stacked(layers: list[LayerWeights]) -> LayerArrays:
    """The weights of several layers, all of one shape, with a leading axis over layers."""
    return LayerArrays(*(np.stack(arrays) for arrays in zip(*layers, strict=True)))


def padded(array: np.ndarray, multiple: int) -> np.ndarray:
    """Zeros added to the last axis up to a multiple."""
    *lead, columns = array.shape
    out = aligned((*lead, -(-columns // multiple) * multiple), array.dtype)
    out[..., :columns] = array
    return out


def in_panels(matrices: np.ndarray, columns: int) -> np.ndarray:
    """(..., K, n) as panels of so many columns, each contiguous: (..., n / columns, K, columns)."""
    wide = padded(matrices, columns)
    *lead, depth, n = wide.shape
    out = aligned((*lead, n // columns, depth, columns), wide.dtype)
    out[...] = np.moveaxis(wide.reshape(*lead, depth, n // columns, columns), -2, -3)
    return out


def stretches(layers: int, entropy: bool) -> list[tuple[int, int, bool]]:
    """(first, end, whether entropies are wanted) of the calls for so many layers: those of the
    first layer, if any."""
    calls = [(0, 1, True), (1, layers, False)] if entropy else [(0, layers, False)]
    return [call for call in calls if call[0] < call[1]]


def parts(blocks: int, workers: int) -> list[slice]:
    """All blocks, shared between so many workers or fewer."""
    workers = min(workers, blocks)
    edges = [blocks * k // workers for k in range(workers + 1)]
    return list(map(slice, edges[:-1], edges[1:]))
