"""Weights: the matrices of one attention layer, shared by all layers or fresh for each.

One layer maps tokens X, (N, d), to sum over heads h of A_h X W_V^h with
A_h = softmax over the mask of X M_h X^T. Only M_h = W_Q^h W_K^h^T / sqrt(d_QK) matters for the
dynamics (WU, arXiv 2405.18781, section 3), so a head is the pair (M_h, W_V^h); both may be stored
as thin factors. A key bias cancels in the softmax and a value bias adds a constant row, which
leaves one query bias per head and one output bias. That is so where rows of A sum to 1 and keys are
taken as they are: with a sink, another kind of attention, RoPE or QK-norm, a layer is the one that
has no bias of keys, and adds that of values whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dynsim._seeds import SCORES, VALUES, stream
from dynsim._values import (
    Value,
    check_instance,
    check_switch,
    entry_of_layer,
    real_array,
    real_number,
    shown,
    whole,
)
from dynsim.network.schedules import Schedule, as_schedule

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

__all__ = [
    "WEIGHTS",
    "Diagonal",
    "Family",
    "Fixed",
    "FromArray",
    "Gaussian",
    "Identity",
    "Jordan",
    "LayerArrays",
    "LayerSource",
    "LayerWeights",
    "Layers",
    "Orthogonal",
    "Sharpened",
    "Value",
    "Weights",
    "Zero",
    "check_no_temperature",
    "with_factors",
]


class LayerArrays(NamedTuple):
    """The arrays of `LayerWeights`, or those of several layers with a leading axis; not checked."""

    query: np.ndarray
    query_bias: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray


class LayerWeights(LayerArrays):
    """One layer with H heads: Q = X query + query_bias, K = X key, V = X value, then V output.

    query (H, d, p), query_bias (H, p), key (H, d, p) or (H, 0, 0), value (H, d, q) or (H, 0, 0),
    output (H, q, d), output_bias (d,); float64 or float32. The scores are Q K^T, with
    1/sqrt(d_QK) already inside `query`. An array of size 0 in `key` or `value` stands for the
    identity, so (M, W_V) is query = M and output = W_V.

    Raises ValueError when an array does not hold real numbers or its shape does not fit the others.
    """

    __slots__ = ()

    def __new__(
        cls,
        query: ArrayLike,
        query_bias: ArrayLike,
        key: ArrayLike,
        value: ArrayLike,
        output: ArrayLike,
        output_bias: ArrayLike,
    ) -> LayerWeights:
        given = (query, query_bias, key, value, output, output_bias)
        arrays = [
            real_array(f"{field} of a layer", array, own=(np.float32,))
            for field, array in zip(cls._fields, given, strict=True)
        ]
        _check_shapes(dict(zip(cls._fields, arrays, strict=True)))
        return super().__new__(cls, *arrays)

    @classmethod
    def _make(cls, iterable: Iterable) -> LayerWeights:  # type: ignore[override]
        """For `_replace`: checked as well."""
        return cls(*iterable)

    @classmethod
    def from_matrices(cls, M: ArrayLike, W_V: ArrayLike) -> LayerWeights:
        """From full matrices: M and W_V are (H, d, d)."""
        M, W_V = (
            np.ascontiguousarray(real_array(name, array, own=(np.float32,)))
            for name, array in (("M", M), ("W_V", W_V))
        )
        n_heads, d = len(M), M.shape[-1]
        empty = np.zeros((n_heads, 0, 0))
        return cls(M, np.zeros((n_heads, d)), empty, empty, W_V, np.zeros(d))

    @property
    def M(self) -> np.ndarray:
        """W_Q W_K^T / sqrt(d_QK) of every head, (H, d, d)."""
        return self.query @ self.key.swapaxes(1, 2) if self.key.size else self.query

    @property
    def W_V(self) -> np.ndarray:
        """The value matrix of every head, output included, (H, d, d)."""
        return self.value @ self.output if self.value.size else self.output

    @property
    def with_values(self) -> LayerWeights:
        """The same with a value matrix: W_V where there was none, and the identity as output."""
        if self.value.size:
            return self
        heads, d, _ = self.output.shape
        identity = np.broadcast_to(np.eye(d, dtype=self.output.dtype), (heads, d, d))
        return self._replace(value=self.output, output=np.ascontiguousarray(identity))

    def sharpened(self, beta: float) -> LayerWeights:
        """With all scores multiplied by beta >= 0, the inverse temperature.

        Raises ValueError unless beta is finite and not negative.
        """
        _check_beta(beta)
        return self._replace(query=beta * self.query, query_bias=beta * self.query_bias)

    def astype(self, dtype: DTypeLike) -> LayerWeights:
        return LayerWeights(*(array.astype(dtype, copy=False) for array in self))


def _check_beta(beta: float) -> None:
    if not 0 <= real_number("the inverse temperature beta", beta) < np.inf:
        raise ValueError(f"the inverse temperature beta is finite and not negative; got {beta}")


def _check_shapes(arrays: dict[str, np.ndarray]) -> None:
    """Every shape against every other."""
    query, output = arrays["query"].shape, arrays["output"].shape
    for name in ("query", "output"):
        if arrays[name].ndim != 3 or not arrays[name].size:
            shape = "(heads, d, p)" if name == "query" else "(heads, q, d)"
            raise ValueError(f"{name} has shape {shape}, none of them 0; got {arrays[name].shape}")
    heads, d, p = query
    q = output[1]
    wanted: dict[str, list[tuple[int, ...]]] = {
        "query_bias": [(heads, p)],
        "key": [(heads, d, p), *([(heads, 0, 0)] if p == d else [])],
        "value": [(heads, d, q), *([(heads, 0, 0)] if q == d else [])],
        "output": [(heads, q, d)],
        "output_bias": [(d,)],
    }
    for name, shapes in wanted.items():
        if arrays[name].shape not in shapes:
            raise ValueError(
                f"with a query of shape {query} and an output of shape {output}, {name} has shape "
                f"{' or '.join(map(str, shapes))}; got {arrays[name].shape}"
            )


# --- families of one matrix ---------------------------------------------------------------------


class Family(Value):
    """A family of d x d matrices: `draw` gives one per head."""

    #: True when there is another matrix in every layer, unless the weights are shared.
    varies = False

    def matrix(self, d: int, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError

    def draw(self, n_heads: int, d: int, rng: np.random.Generator) -> np.ndarray:
        """(H, d, d)."""
        return np.stack([self.matrix(d, rng) for _ in range(n_heads)])

    def default_d_qk(self, n_heads: int, d: int) -> float:
        return 1.0

    def default_mix(self, n_heads: int) -> float:
        """The weight of each head in the sum over heads, unless the mix is given."""
        return 1.0 / n_heads


@dataclass(frozen=True, eq=False, repr=False)
class Identity(Family):
    """I.

    As values: tokens become averages of tokens, and nothing else.

    >>> Identity().matrix(2, None)
    array([[1., 0.],
           [0., 1.]])
    """

    def matrix(self, d: int, rng: np.random.Generator) -> np.ndarray:
        return np.eye(d)


@dataclass(frozen=True, eq=False, repr=False)
class Zero(Family):
    """0. As scores: uniform attention over the neighbours."""

    def matrix(self, d: int, rng: np.random.Generator) -> np.ndarray:
        return np.zeros((d, d))


@dataclass(frozen=True, eq=False, repr=False)
class Orthogonal(Family):
    """Orthogonal, uniform over the group (Haar): QR of a Gaussian matrix with R's signs moved.

    As values it turns tokens and keeps all distances, so that only the mask and attention act.

    >>> q = Orthogonal().matrix(3, np.random.default_rng(0))
    >>> np.allclose(q @ q.T, np.eye(3))
    True
    """

    varies = True

    def matrix(self, d: int, rng: np.random.Generator) -> np.ndarray:
        q, r = np.linalg.qr(rng.standard_normal((d, d)))
        return q * np.where(np.diagonal(r) < 0, -1.0, 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class Gaussian(Family):
    """Independent entries N(0, sigma^2 / d), the usual random initialisation.

    As scores, M = W_Q W_K^T / sqrt(d_QK) with W_Q, W_K of shape (d, d / heads) and d_QK = d / heads
    unless given. As values, one head has W_V alone; several have W_V^h W_O^h with W_V^h of shape
    (d, d / heads) and entries of W_O ~ N(0, 1 / d), summed over heads as in a transformer.
    """

    sigma: float = 1.0
    varies = True

    def __post_init__(self) -> None:
        sigma = real_number("sigma of gaussian weights", self.sigma)
        if not (np.isfinite(sigma) and sigma > 0):
            raise ValueError(
                f"sigma of gaussian weights is positive; got {self.sigma}; use zero for no weights"
            )

    def factor(
        self, n_heads: int, rows: int, columns: int, d: int, rng: np.random.Generator
    ) -> np.ndarray:
        return rng.standard_normal((n_heads, rows, columns)) * (self.sigma / d**0.5)

    def matrix(self, d: int, rng: np.random.Generator) -> np.ndarray:
        return self.factor(1, d, d, d, rng)[0]

    def default_d_qk(self, n_heads: int, d: int) -> float:
        return float(_head_width(n_heads, d))

    def default_mix(self, n_heads: int) -> float:
        return 1.0


@dataclass(frozen=True, eq=False, repr=False)
class Jordan(Family):
    """I + w (ones on the superdiagonal): WU's Theorem 3 and App. F.

    >>> Jordan(2.0).matrix(2, None)
    array([[1., 2.],
           [0., 1.]])
    """

    w: float

    def __post_init__(self) -> None:
        if not np.isfinite(real_number("w of jordan weights", self.w)):
            raise ValueError(f"w of jordan weights is a finite number; got {self.w}")

    def matrix(self, d: int, rng: np.random.Generator) -> np.ndarray:
        return np.eye(d) + self.w * np.eye(d, k=1)


@dataclass(frozen=True, eq=False, repr=False)
class Diagonal(Family):
    """diag(entries): one number for all dimensions, or one per dimension.

    >>> Diagonal([2.0, 1.0]).matrix(2, None)
    array([[2., 0.],
           [0., 1.]])
    """

    entries: float | np.ndarray

    def __post_init__(self) -> None:
        entries = self._freeze_array("entries")
        if entries.ndim > 1 or not entries.size or not np.all(np.isfinite(entries)):
            raise ValueError(f"diagonal weights are a list of finite numbers; got {shown(entries)}")

    def matrix(self, d: int, rng: np.random.Generator) -> np.ndarray:
        entries = np.asarray(self.entries)
        if entries.size not in (1, d):
            raise ValueError(
                f"diagonal weights need one entry per dimension; got {entries.size} entries "
                f"for dimension {d}; give {d} or one"
            )
        return np.diag(np.broadcast_to(entries, d)).copy()


@dataclass(frozen=True, eq=False, repr=False)
class FromArray(Family):
    """A given matrix: (d, d), (H, d, d) for heads, or (layers, H, d, d).

    >>> FromArray([[0.0, 1.0], [1.0, 0.0]]).draw(1, 2, None)[0]
    array([[0., 1.],
           [1., 0.]])
    """

    array: np.ndarray

    def __post_init__(self) -> None:
        array = self._freeze_array("array")
        if array.ndim not in (2, 3, 4) or array.shape[-1] != array.shape[-2] or not array.size:
            raise ValueError(
                f"a weight matrix is square: (d, d), (heads, d, d) or (layers, heads, d, d); "
                f"got shape {array.shape}"
            )
        if not np.all(np.isfinite(array)):
            raise ValueError("a weight matrix is finite; found NaN or infinity in it")

    @property
    def varies(self) -> bool:  # type: ignore[override]
        return self.array.ndim == 4

    def draw(self, n_heads: int, d: int, rng: np.random.Generator, layer: int = 0) -> np.ndarray:
        array = self.array
        if array.shape[-1] != d:
            raise ValueError(
                f"weights and tokens share their dimension; the matrix is "
                f"{array.shape[-1]} x {array.shape[-1]}, the tokens have dimension {d}"
            )
        if array.ndim == 4:
            array = array[layer]
        if array.ndim == 2:
            return np.repeat(array[None], n_heads, axis=0)
        return array

    def default_mix(self, n_heads: int) -> float:
        return 1.0 if self.array.ndim > 2 else 1.0 / n_heads


def _head_width(n_heads: int, d: int) -> int:
    if d % n_heads:
        raise ValueError(
            f"the heads share the dimension evenly; {d} does not divide by {n_heads} heads; "
            f"choose a number of heads that divides {d}"
        )
    return d // n_heads


#: Every family by the name that the command line gives it.
WEIGHTS = {
    "identity": Identity,
    "orthogonal": Orthogonal,
    "gaussian": Gaussian,
    "jordan": Jordan,
    "diagonal": Diagonal,
    "zero": Zero,
}


# --- weights of a whole network -----------------------------------------------------------------


class LayerSource:
    """Whatever gives the matrices of layer t: `Weights`, `Layers`, or an object of your own.

    It has n_heads; is_constant, true when all layers are alike; n_layers, how many there are, or
    None; dim, the dimension it demands, or None; and layer(t, d). One of your own is a frozen
    dataclass of this class and of `Value`, by which dynamics are compared and described.
    """

    if TYPE_CHECKING:

        @property
        def n_heads(self) -> int: ...

        @property
        def is_constant(self) -> bool: ...

        @property
        def n_layers(self) -> int | None: ...

        @property
        def dim(self) -> int | None: ...

    @property
    def n_systems(self) -> int:
        """How many systems in a batch have matrices of their own (`ensemble.Ensemble`)."""
        return 1

    def layer(self, t: int, d: int) -> LayerWeights:
        """The matrices of layer t (the first is 0) for tokens of dimension d."""
        raise NotImplementedError

    def _drawn_layer(self, t: int) -> int:
        """The layer that has the matrices of layer t; ValueError where there is none."""
        t = whole("number of a layer", t, least=0)
        if self.n_layers is not None and t >= self.n_layers:
            raise ValueError(
                f"there are weights for {self.n_layers} layers, the first of them layer 0; asked "
                f"for layer {t}"
            )
        return 0 if self.is_constant else t


@dataclass(frozen=True, eq=False, repr=False)
class Weights(LayerSource, Value):
    """Scores from one family and values from another, with one or more heads.

    Parameters
    ----------
    scores, value : Family
        M = S / sqrt(d_QK) with S from `scores` (for `Gaussian`, S = W_Q W_K^T), and W_V.
    n_heads : int
        Number of heads.
    d_qk : float, optional
        The temperature term d_QK; by default d / heads for Gaussian scores and 1 otherwise.
    beta : float
        Inverse temperature: M = beta S / sqrt(d_QK). 0 makes attention uniform.
    mix : tuple of float, optional
        Weight of each head in the sum (output mix); by default 1 for Gaussian values, whose W_O
        mixes already, and 1 / heads otherwise.
    shared : bool
        One draw for all layers, or a fresh one for each.
    seed : int
        Layer t draws from its own stream of this seed, whatever was drawn before.
    factored : bool
        Keep W_Q and W_K apart where M alone would do, for what acts on queries and keys: W_K = I
        for identity and zero scores. A dynamics with RoPE or QK-norm sets it by itself.
    """

    scores: Family = Gaussian()
    value: Family = Gaussian()
    n_heads: int = 1
    d_qk: float | None = None
    mix: tuple[float, ...] | None = None
    shared: bool = False
    seed: int = 0
    beta: float = 1.0
    factored: bool = False

    def __post_init__(self) -> None:
        _check_beta(self.beta)
        check_switch("factored of weights", self.factored)
        if self.factored and not isinstance(self.scores, (Gaussian, Identity, Zero)):
            raise ValueError(
                f"queries and keys are known of gaussian, identity and zero scores; those of "
                f"{self.scores} are one matrix M, given whole; give W_Q and W_K, as "
                f"dynsim.weights.Layers of LayerWeights(query=..., key=..., ...)"
            )
        whole("number of heads", self.n_heads, least=1)
        whole("seed of weights", self.seed, least=0, most=np.inf)
        check_switch("shared of weights", self.shared)
        for name, family in (("scores", self.scores), ("value", self.value)):
            check_instance(f"{name} of weights", family, Family, "dynsim.weights.Gaussian()")
            given: np.ndarray = getattr(family, "array", np.empty((1, 1)))
            if given.ndim > 2 and given.shape[-3] != self.n_heads:
                raise ValueError(
                    f"the array holds matrices for {given.shape[-3]} heads, not for "
                    f"{self.n_heads}; give the same number"
                )
        d_qk = 1.0 if self.d_qk is None else real_number("d_QK", self.d_qk)
        if not (np.isfinite(d_qk) and d_qk > 0):
            raise ValueError(f"d_QK is a positive number; got {self.d_qk}")
        if self.mix is not None:
            mix = real_array("the output mix", self.mix)
            if mix.shape != (self.n_heads,) or not np.all(np.isfinite(mix)):
                raise ValueError(
                    f"the output mix has one finite weight per head; got {shown(self.mix)} for "
                    f"{self.n_heads} heads"
                )

    @property
    def is_constant(self) -> bool:
        """True when all layers have the same matrices."""
        return self.shared or not (self.scores.varies or self.value.varies)

    @property
    def dim(self) -> int | None:
        """The token dimension that these weights demand; None when any will do."""
        for family in (self.scores, self.value):
            if isinstance(family, FromArray):
                return family.array.shape[-1]
            if isinstance(family, Diagonal) and np.size(family.entries) > 1:
                return np.size(family.entries)
        return None

    @property
    def n_layers(self) -> int | None:
        """How many layers there are matrices for; None when there is no end."""
        given = [f.array for f in (self.scores, self.value) if isinstance(f, FromArray)]
        return min((len(array) for array in given if array.ndim == 4), default=None)

    @cached_property
    def description(self) -> dict:
        """As of all values; whether factors are kept only where they are."""
        fields = super().description
        return fields if self.factored else {k: v for k, v in fields.items() if k != "factored"}

    def layer(self, t: int, d: int) -> LayerWeights:
        """The matrices of layer t (the first is 0) for tokens of dimension d."""
        d = whole("dimension of a layer", d, least=1)
        return _cached_layer(self, self._drawn_layer(t), d)

    def _draw(self, t: int, d: int) -> LayerWeights:
        n_heads = self.n_heads
        d_qk = self.d_qk if self.d_qk is not None else self.scores.default_d_qk(n_heads, d)
        empty = np.zeros((n_heads, 0, 0))
        rng = stream(self.seed, SCORES, t)
        if isinstance(self.scores, Gaussian):
            width = _head_width(n_heads, d)
            query = self.scores.factor(n_heads, d, width, d, rng)
            key = self.scores.factor(n_heads, d, width, d, rng)
            if (
                n_heads == 1 and not self.factored
            ):  # one matrix product per layer now, two fewer in every step
                with np.errstate(all="ignore"):  # a simulation names the layer that overflows
                    query, key = query @ key.swapaxes(1, 2), empty
        else:
            query, key = _draw_family(self.scores, n_heads, d, rng, t), empty
            if self.factored:
                key = np.stack([np.eye(d)] * n_heads)
        query = np.ascontiguousarray(query / d_qk**0.5)
        if self.beta != 1.0:
            with np.errstate(over="ignore"):  # as above
                query *= self.beta
        rng = stream(self.seed, VALUES, t)
        if isinstance(self.value, Gaussian) and n_heads > 1:
            width = _head_width(n_heads, d)
            value = self.value.factor(n_heads, d, width, d, rng)
            output = rng.standard_normal((n_heads, width, d)) / d**0.5
        else:
            value, output = empty, _draw_family(self.value, n_heads, d, rng, t)
        mix = self.mix if self.mix is not None else (self.value.default_mix(n_heads),) * n_heads
        output = np.ascontiguousarray(output * np.asarray(mix)[:, None, None])
        query_bias = np.zeros((n_heads, query.shape[2]))
        return LayerWeights(query, query_bias, key, value, output, np.zeros(d))


def _draw_family(
    family: Family, n_heads: int, d: int, rng: np.random.Generator, t: int
) -> np.ndarray:
    if isinstance(family, FromArray):
        return family.draw(n_heads, d, rng, layer=t)
    return family.draw(n_heads, d, rng)


@lru_cache(maxsize=8)
def _cached_layer(weights: Weights, t: int, d: int) -> LayerWeights:
    return weights._draw(t, d)


@dataclass(frozen=True, eq=False, repr=False)
class Layers(LayerSource, Value):
    """Given layers, one or several: layer t uses entry t; a single one serves all layers.

    Raises ValueError when an entry is not finite or does not fit the others.
    """

    entries: tuple[LayerWeights, ...]
    name: str = "given"

    def __post_init__(self) -> None:
        check_instance("the entries", self.entries, (tuple, list), "(layer_0, layer_1)")
        check_instance("the name of given layers", self.name, str, '"given"')
        object.__setattr__(self, "entries", tuple(self.entries))
        if not self.entries:
            raise ValueError("given layers are one or more; got none")
        for t, layer in enumerate(self.entries):
            if not isinstance(layer, LayerWeights):
                raise ValueError(f"given layers are LayerWeights; layer {t} is {shown(layer)}")
            if layer.output.shape[2] != self.dim or len(layer.query) != self.n_heads:
                raise ValueError(
                    f"given layers have one dimension and one number of heads; layer {t} has "
                    f"{layer.output.shape[2]} and {len(layer.query)}, layer 0 {self.dim} and "
                    f"{self.n_heads}"
                )
            for field, array in zip(layer._fields, layer, strict=True):
                if not np.all(np.isfinite(array)):
                    raise ValueError(
                        f"weights are finite; {field} of layer {t} has NaN or infinity"
                    )

    @property
    def n_heads(self) -> int:
        return len(self.entries[0].query)

    @property
    def is_constant(self) -> bool:
        return len(self.entries) == 1

    @property
    def n_layers(self) -> int | None:
        return None if self.is_constant else len(self.entries)

    @property
    def dim(self) -> int:
        return self.entries[0].output.shape[2]

    def sharpened(self, beta: float) -> Layers:
        """With all scores multiplied by beta >= 0, the inverse temperature; 1 changes nothing.

        Raises ValueError unless beta is finite and not negative.
        """
        _check_beta(beta)
        if beta == 1.0:
            return self
        entries = tuple(layer.sharpened(beta) for layer in self.entries)
        return Layers(entries, name=f"{self.name}, beta {beta:g}")

    def layer(self, t: int, d: int) -> LayerWeights:
        if d != self.dim:
            raise ValueError(
                f"weights and tokens share their dimension; the weights have {self.dim}, the "
                f"tokens {d}"
            )
        return entry_of_layer("weights", self.entries, t)


def Fixed(M: ArrayLike, W_V: ArrayLike) -> Layers:
    """The given matrices in every layer: M = W_Q W_K^T / sqrt(d_QK) and W_V.

    Each is (d, d), or (H, d, d) for H heads, whose outputs A_h X W_V^h are added.

    >>> Fixed(np.zeros((2, 2)), np.eye(2)).layer(0, 2).W_V.shape
    (1, 2, 2)
    """
    M, W_V = real_array("M", M), real_array("W_V", W_V)
    if M.ndim not in (2, 3) or M.shape[-1] != M.shape[-2] or M.shape != W_V.shape:
        raise ValueError(
            f"M and W_V are square and alike, (d, d) or (heads, d, d); got {M.shape} and "
            f"{W_V.shape}; give both in the same shape"
        )
    M, W_V = (np.array(a.reshape(-1, *a.shape[-2:])) for a in (M, W_V))
    for array in (M, W_V):
        array.setflags(write=False)
    return Layers((LayerWeights.from_matrices(M, W_V),), name="fixed")


@dataclass(frozen=True, eq=False, repr=False)
class Sharpened(LayerSource, Value):
    """Weights with the scores of layer t multiplied by beta_t, an inverse temperature by layer.

    It multiplies q . k alone, not what a position adds to it nor a sink.

    Raises ValueError unless all beta_t are finite and not negative, and there are as many as
    layers.

    >>> from dynsim.network.schedules import Linear
    >>> cooled = Sharpened(Weights(scores=Identity()), Linear(1.0, 3.0, layers=3))
    >>> cooled.layer(1, 2).M[0]
    array([[2., 0.],
           [0., 2.]])
    """

    weights: LayerSource
    beta: Schedule

    def __post_init__(self) -> None:
        check_instance("weights", self.weights, LayerSource, "dynsim.weights.Weights()")
        object.__setattr__(self, "beta", as_schedule("the inverse temperature", self.beta))
        given, layers = self.beta.n_layers, self.weights.n_layers
        if None not in (given, layers) and given != layers:
            raise ValueError(
                f"there are inverse temperatures for {given} layers and weights for {layers}; give "
                f"the same number"
            )
        _check_beta(self.beta.ends[0])

    @property
    def n_heads(self) -> int:
        return self.weights.n_heads

    @property
    def is_constant(self) -> bool:
        return self.weights.is_constant and self.beta.is_constant

    @property
    def dim(self) -> int | None:
        return self.weights.dim

    @property
    def n_layers(self) -> int | None:
        return self.weights.n_layers or self.beta.n_layers

    def layer(self, t: int, d: int) -> LayerWeights:
        return _cached_sharpened(self, t, d)


@lru_cache(maxsize=8)
def _cached_sharpened(source: Sharpened, t: int, d: int) -> LayerWeights:
    return source.weights.layer(t, d).sharpened(source.beta.at(t))


def with_factors(weights: LayerSource, purpose: str) -> LayerSource:
    """The weights with W_Q and W_K of every head, which `purpose`, RoPE or QK-norm, acts on.

    Raises ValueError where there is a score matrix M only.
    """
    if isinstance(weights, Sharpened):
        return replace(weights, weights=with_factors(weights.weights, purpose))
    if isinstance(weights, Weights):
        return replace(weights, factored=True)
    if isinstance(weights, Layers) and not all(layer.key.size for layer in weights.entries):
        raise ValueError(
            f"{purpose} acts on queries and keys; a layer of these weights has a score matrix M, "
            f"given whole; give W_Q and W_K, LayerWeights(query=..., key=..., ...)"
        )
    return weights


def check_no_temperature(weights: LayerSource) -> None:
    """Raise ValueError where weights have an inverse temperature, which QK-norm would undo."""
    if isinstance(weights, Sharpened) or (isinstance(weights, Weights) and weights.beta != 1.0):
        raise ValueError(
            f"QK-norm leaves nothing of the inverse temperature of the weights, beta = "
            f"{weights.beta}; give it as the norm's gain, QKNorm(gain=...), a number or a schedule"
        )
