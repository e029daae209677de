"""AttentionDynamics: mask + weights + norm + skip + placement, and the step they define.

`AttentionDynamics.step` is the definition: plain numpy, dense, slow. Every engine must agree with
it to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from dynsim._values import (
    Value,
    check_instance,
    check_name,
    describe,
    entry_of_layer,
    real_array,
    real_number,
    shown,
    whole,
)
from dynsim.masks.constructors import from_array
from dynsim.masks.layout import Layout
from dynsim.masks.networkx_view import compile_layout
from dynsim.network.attention import AttentionKind, NoQKNorm, QKNorm, Softmax
from dynsim.network.dropout import Dropout
from dynsim.network.ensemble import by_system
from dynsim.network.gates import FixedGate, Gate, GateWeights, NoGate
from dynsim.network.mlp import ACTIVATIONS, MLP, FixedMLP, NoMLP
from dynsim.network.norms import NoNorm, Norm
from dynsim.network.parts import unusual_parts
from dynsim.network.positions import NoPosition, Position
from dynsim.network.residual import ALIASES, PLACEMENTS, Residual
from dynsim.network.weights import (
    Family,
    Layers,
    LayerSource,
    LayerWeights,
    Weights,
    Zero,
    check_no_temperature,
    with_factors,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["ALIASES", "PLACEMENTS", "AttentionDynamics", "check_dynamics"]


@dataclass(frozen=True, eq=False, repr=False)
class AttentionDynamics(Value):
    """One attention layer as a map on tokens, to be iterated.

    x' = after(skip x + branch(f(before(x)))) with f(x) = sum_h A_h x W_V^h, A_h the masked softmax
    of x M_h x^T (or what `position`, `kind` and `qk_norm` make of it), and the norm standing after
    (post), before (pre), before and in the branch (peri) or in the branch and after (ngpt). With an
    MLP the same form follows with f the MLP (WU, arXiv 2405.18781, section 3).

    Parameters
    ----------
    mask : networkx.DiGraph or array (N, N)
        Nodes 0..N-1; an edge j -> i means that token i attends to token j. Of an array, where
        [i, j] is not 0, i may attend to j.
    weights : LayerSource or Family
        Matrices of every layer (`dynsim.weights`). A matrix family alone means W_V of this
        family under uniform attention (M = 0).
    norm : Norm
        `dynsim.norms.NoNorm()` by default; `dynsim.norms.PerLayer` where it differs by layer.
    placement : str or tuple of str
        "post", "pre", "peri" (also called "sandwich") or "ngpt"; or one of them for each layer, as
        `dynsim.residual.mix_ln` gives them.
    skip : float or Residual
        Weight of the residual connection; 0 for none, 1 for a transformer's. Where the branch has a
        weight, too, or layers differ, a `dynsim.residual.Residual`.
    mlp : NoMLP or GaussianMLP or FixedMLP
        What follows attention.
    mlp_norm : Norm, optional
        The MLP's norm; `norm` when not given.
    dropout : Dropout
        None by default. With it, layer t of sample s is a random map with a stream of its own.
    position : Position
        What the places of tokens do to their scores (`dynsim.positions`); nothing by default.
    kind : AttentionKind
        How scores become weights (`dynsim.attention`); the softmax by default.
    qk_norm : QKNorm
        `dynsim.attention.QKNorm(gain)` scales queries and keys first; none by default.
    gate : NoGate or GaussianGate or FixedGate
        What multiplies the outputs of the heads (`dynsim.gates`).

    Raises
    ------
    ValueError
        When a row of the mask is empty, a name is unknown, shapes cannot fit, or weights, norms and
        MLPs are given for different numbers of layers.

    Examples
    --------
    >>> from dynsim import masks
    >>> from dynsim.network import weights
    >>> pure = AttentionDynamics(masks.complete(3), weights.Identity())
    >>> pure.step(np.array([[1.0], [2.0], [6.0]]))
    array([[3.],
           [3.],
           [3.]])
    """

    mask: nx.DiGraph
    weights: LayerSource
    norm: Norm = NoNorm()
    placement: str | tuple[str, ...] = "post"
    skip: float | Residual = 0.0
    mlp: MLP = NoMLP()
    mlp_norm: Norm = None  # type: ignore[assignment]  # `norm`, see __post_init__
    dropout: Dropout = Dropout()
    position: Position = NoPosition()
    kind: AttentionKind = Softmax()
    qk_norm: QKNorm | NoQKNorm = NoQKNorm()
    gate: Gate = NoGate()

    if TYPE_CHECKING:  # what may be given is more than what is held

        def __init__(
            self,
            mask: nx.DiGraph | np.ndarray,
            weights: LayerSource | Family,
            norm: Norm = ...,
            placement: str | Sequence[str] = ...,
            skip: float | Residual = ...,
            mlp: MLP = ...,
            mlp_norm: Norm | None = ...,
            dropout: Dropout = ...,
            position: Position = ...,
            kind: AttentionKind = ...,
            qk_norm: QKNorm | NoQKNorm = ...,
            gate: Gate = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.mask, nx.Graph):
            object.__setattr__(self, "mask", from_array(self.mask))
        self.layout  # noqa: B018  compiled now, so that a bad mask is refused here
        if not isinstance(self.weights, (LayerSource, Family)):
            raise ValueError(
                f"weights are an object such as dynsim.weights.Weights(); got {shown(self.weights)}"
            )
        if isinstance(self.weights, Family):
            shared = Weights(scores=Zero(), value=self.weights, shared=True)
            object.__setattr__(self, "weights", shared)
        if self.mlp_norm is None:
            object.__setattr__(self, "mlp_norm", self.norm)
        object.__setattr__(self, "placement", _placement(self.placement))
        if not isinstance(self.skip, Residual) and not np.isfinite(
            real_number("the skip weight", self.skip)
        ):
            raise ValueError(
                f"the skip weight is a finite number, or a dynsim.residual.Residual; got "
                f"{self.skip}"
            )
        check_instance("a gate", self.gate, Gate, "dynsim.gates.GaussianGate()")
        for norm in (self.norm, self.mlp_norm):
            check_instance("a norm", norm, Norm, "dynsim.norms.Unit()")
        check_instance("an MLP", self.mlp, MLP, "dynsim.mlp.GaussianMLP()")
        check_instance("dropout", self.dropout, Dropout, "dynsim.Dropout(hidden=0.1)")
        self._check_scores()

        given = {part: how_many for part, how_many in self._given_layers().items() if how_many}
        if len(set(given.values())) > 1:
            numbers = ", ".join(f"{part} for {how_many}" for part, how_many in given.items())
            raise ValueError(f"what is given by layer is given for the same layers; got {numbers}")

    def _check_scores(self) -> None:
        """Positions, kind of attention and QK-norm, against each other and the weights."""
        check_instance("a position", self.position, Position, "dynsim.positions.RoPE()")
        check_instance(
            "a kind of attention", self.kind, AttentionKind, "dynsim.attention.Sigmoid()"
        )
        norms = QKNorm, NoQKNorm
        check_instance("a QK-norm", self.qk_norm, norms, "dynsim.attention.QKNorm(gain=4.0)")
        self.position.check(self.weights.n_heads)
        self.kind.check(self.weights.n_heads)
        if self.needs_factors:
            what = "RoPE" if self.position.turns else "QK-norm"
            object.__setattr__(self, "weights", with_factors(self.weights, what))
            if self.weights.dim is not None:
                self._check_width(self.weights.dim)
        if self.qk_norm.active:
            check_no_temperature(self.weights)

    @property
    def needs_factors(self) -> bool:
        """True when a position or a norm acts on queries and keys, not on scores alone."""
        return self.position.turns or self.qk_norm.active

    def _check_width(self, d: int) -> None:
        layer, _ = next(by_system(self.weights, 0, d, np.zeros(1, np.int64)))
        width = layer.query.shape[2]
        self.position.check(self.weights.n_heads, width)
        self.qk_norm.check(width)

    def _given_layers(self) -> dict[str, int | None]:
        return {
            "weights": self.weights.n_layers, "norms": self.norm.n_layers,
            "norms of the MLP": self.mlp_norm.n_layers, "MLPs": self.mlp.n_layers,
            "gains of the QK-norm": self.qk_norm.n_layers,
            "placements": None if isinstance(self.placement, str) else len(self.placement),
            "weights of skip and branch": self.residual.n_layers, "gates": self.gate.n_layers,
        }  # fmt: skip

    @property
    def n_layers(self) -> int | None:
        """How many layers there are; None when there is no end."""
        return next((how_many for how_many in self._given_layers().values() if how_many), None)

    @property
    def is_constant(self) -> bool:
        """True when all layers are alike, but for what dropout draws."""
        norms = len(self.norm.each) == 1 and len(self.mlp_norm.each) == 1
        around = isinstance(self.placement, str) and self.residual.is_constant
        within = self.qk_norm.is_constant and self.gate.is_constant
        return self.weights.is_constant and self.mlp.is_constant and norms and around and within

    @cached_property
    def residual(self) -> Residual:
        """The weights of skip connection and branch: `skip`, or those that it stands for."""
        return self.skip if isinstance(self.skip, Residual) else Residual(self.skip, 1.0)

    def places(self, t: int) -> tuple[str, ...]:
        """Where norms stand in layer t: of "before", "branch" and "after", those that apply."""
        if isinstance(self.placement, str):
            return PLACEMENTS[self.placement]
        return PLACEMENTS[entry_of_layer("placements", self.placement, t)]

    @property
    def _placements(self) -> tuple[str, ...]:
        """The placements of the layers, or the one that serves them all."""
        return (self.placement,) if isinstance(self.placement, str) else self.placement

    @property
    def ends_in_norm(self) -> bool:
        """True when the norm stands after the skip connection in every layer."""
        return all("after" in PLACEMENTS[name] for name in self._placements)

    def layer(self, t: int, d: int | None = None) -> AttentionDynamics:
        """Layer t alone, as a dynamics all of whose layers are this one; dropout stays as it is.

        Drawn weights have their matrices for the dimension d, which must be given unless the
        weights demand one.

        >>> from dynsim import masks
        >>> from dynsim.network import weights
        >>> fresh = AttentionDynamics(masks.causal(4), weights.Weights())
        >>> alone = fresh.layer(2, d=3)
        >>> alone.is_constant, np.array_equal(alone.step(np.eye(4, 3)), fresh.step(np.eye(4, 3), 2))
        (True, True)
        """
        d = self.weights.dim if d is None else d
        if d is None:
            raise ValueError("these weights are for any dimension; give that of the tokens, d=...")
        mlp = self.mlp
        if not mlp.is_constant:
            mlp = FixedMLP(mlp.layer(t, d), mlp.activation)
        weights, gate, placement = self.weights.layer(t, d), self.gate, self.placement
        if not self.gate.is_constant:
            gate = FixedGate(self.gate_of(weights, t))
        if not isinstance(placement, str):
            placement = entry_of_layer("placements", placement, t)
        skip = self.skip if self.residual.is_constant else Residual(*self.residual.layer(t))
        return replace(
            self, weights=Layers((weights,), name=f"layer {t}"), norm=self.norm.layer(t), mlp=mlp,
            mlp_norm=self.mlp_norm.layer(t), placement=placement, skip=skip,
            qk_norm=self.qk_norm.layer(t), gate=gate,
        )  # fmt: skip

    @cached_property
    def layout(self) -> Layout:
        """The mask in its cheapest form, compiled once."""
        return compile_layout(self.mask)

    @property
    def n_tokens(self) -> int:
        return self.layout.n_tokens

    @cached_property
    def description(self) -> dict:
        mask = {"name": self.mask.name or "graph", "tokens": self.n_tokens}
        fields = ["weights", "norm", "placement", "skip", "mlp", "mlp_norm"]
        fields += ["dropout"] * self.dropout.active
        fields += unusual_parts(self)
        return {
            "type": type(self).__name__,
            "mask": mask | {"layout": self.layout.description},
            **{field: describe(getattr(self, field)) for field in fields},
        }

    def check_tokens(self, x: np.ndarray) -> None:
        """Raise ValueError unless `x`, (..., N, d), can be a state of this dynamics."""
        x = real_array("tokens", x, own=(np.float32,))
        if x.ndim < 2 or 0 in x.shape:
            raise ValueError(
                f"tokens are an array (N, d) or (samples, N, d), none of them 0; got shape "
                f"{x.shape}"
            )
        n, d = x.shape[-2:]
        if n != self.n_tokens:
            raise ValueError(
                f"the mask is for {self.n_tokens} tokens, the input has {n}; build the mask for {n}"
            )
        if not np.all(np.isfinite(x)):
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
            raise ValueError(f"tokens are finite; found {x[where]} at index {where}")
        for norm in {id(norm): norm for norm in self.norm.each + self.mlp_norm.each}.values():
            norm.check(d)
            undefined = np.argwhere(norm.undefined(x))
            if len(undefined):
                *sample, token = undefined[0]
                place = f"token {token}" + (f" of sample {sample[0]}" if sample else "")
                raise ValueError(
                    f"{type(norm).__name__} divides by a token's size, and {place} has none (it "
                    f"is {'constant' if norm.switches(d).centre else 'zero'}); remove or change it"
                )
        self._check_width(d)
        if self.mlp.active:
            self.mlp.layer(0, d)
        self.residual.check(d)
        if self.gate.active:
            self.gate_of(self.weights.layer(0, d), 0)

    def allowed(self) -> np.ndarray:
        """The mask as a dense boolean matrix: entry [i, j] is True when i may attend to j."""
        rows = self.layout.to_rows()
        allowed = np.zeros((self.n_tokens, self.n_tokens), bool)
        allowed[rows.row_of_edge, rows.indices] = True
        return allowed

    def require_deterministic(self, what: str) -> None:
        """Raise ValueError when there is dropout, which `what`, the caller, cannot deal with."""
        if self.dropout.active:
            raise ValueError(
                f"{what}: layers are random with {self.dropout}; leave the dropout out, "
                f"dropout=dynsim.Dropout()"
            )

    def attention(self, x: np.ndarray, t: int = 0) -> np.ndarray:
        """The attention matrices of layer t on tokens x: (N, d) -> (H, N, N).

        Rows sum to 1 where `kind.is_average`, as for the softmax. That is before their dropout.
        """
        return self.attention_of(*self.attention_input(self._one_state(x), t), t)

    def _one_state(self, x: ArrayLike) -> np.ndarray:
        x = real_array("tokens", x, own=(np.float32,))
        if x.ndim != 2 or len(x) != self.n_tokens or not x.size:
            raise ValueError(f"one state is ({self.n_tokens}, d), d >= 1; got shape {x.shape}")
        return x

    def attention_input(self, x: np.ndarray, t: int) -> tuple[np.ndarray, LayerWeights]:
        """What attention in layer t sees of tokens x, (..., N, d), and the layer's weights."""
        x = self.attention_tokens(x, t)
        return x, self.weights.layer(t, x.shape[-1]).astype(x.dtype)

    def attention_tokens(self, x: np.ndarray, t: int) -> np.ndarray:
        """What attention in layer t sees of tokens x, (..., N, d)."""
        x = real_array("tokens", x, own=(np.float32,), axes=1)
        return self._at("before", x, self.norm.layer(t), t)

    def attention_of(self, x: np.ndarray, layer: LayerWeights, t: int = 0) -> np.ndarray:
        """The attention matrices of what `attention_input` gives: (..., N, d) -> (..., H, N, N)."""
        return self.kind.weights(self.scores_of(x, layer, t), self.allowed())

    def scores_of(self, x: np.ndarray, layer: LayerWeights, t: int = 0) -> np.ndarray:
        """The scores of what `attention_input` gives, masked or not: (..., N, d) -> (..., H, N, N).

        s_ij = q_i . k_j, after the norm and the position of queries and keys, and what the position
        adds.
        """
        query, key = self.query_and_key(x, layer, t)
        scores = query @ np.swapaxes(key, -1, -2)
        bias = self.position.bias(self.n_tokens, len(layer.query))
        return scores if bias is None else scores + bias.astype(scores.dtype)

    def query_and_key(
        self, x: np.ndarray, layer: LayerWeights, t: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Queries (..., H, N, p), and keys (..., H, N, p) or, without a matrix, (..., 1, N, d)."""
        query, key = self.qk_norm.layer(t).normalised(*_query_and_key(x, layer))
        return self.position.turned(query), self.position.turned(key)

    def normalises_queries(self, x: np.ndarray, t: int) -> bool:
        """False where QK-norm would divide by zero in layer t, for tokens x (N, d)."""
        with np.errstate(all="ignore"):
            seen, layer = self.attention_input(x, t)
            norms, given = (
                self.qk_norm.layer(t).norms(layer.query.shape[2]),
                _query_and_key(seen, layer),
            )
            return not any(norm.undefined(z).any() for norm, z in zip(norms, given, strict=True))

    def _dropped(self, A: np.ndarray, t: int, sample: int) -> np.ndarray:
        """A, (H, N, N), after its dropout: one number for each head and entry of the mask."""
        if not self.dropout.attention:
            return A
        allowed = self.allowed()
        A[:, allowed] = self.dropout.scaled(A[:, allowed], "attention", t, sample)
        return A

    def step(self, x: np.ndarray, t: int = 0, sample: int = 0) -> np.ndarray:
        """One layer, layer number t: tokens (N, d) -> (N, d).

        The number of the sample decides what is dropped, where there is dropout, and nothing else.
        """

        whole("number of a sample", sample, least=0)
        x = self._one_state(x)

        def attend(z: np.ndarray, layer: LayerWeights) -> np.ndarray:
            A = self._dropped(self.attention_of(z, layer, t), t, sample)
            if self.gate.active:
                return self.gated(A, z, layer, t)
            value = z @ layer.value if layer.value.size else z
            return (A @ value @ layer.output).sum(axis=0) + layer.output_bias

        return self.compose(x, t, attend, sample)

    def gated(self, A: np.ndarray, z: np.ndarray, layer: LayerWeights, t: int) -> np.ndarray:
        """sum_h (A_h z V_h * G_h) O_h + bias, the heads through their gates: (..., N, d)."""
        layer = layer.with_values
        heads = A @ (z[..., None, :, :] @ layer.value) * self.gate_of(layer, t).open(z)
        return (heads @ layer.output).sum(axis=-3) + layer.output_bias

    def gate_of(self, layer: LayerWeights, t: int) -> GateWeights:
        """The gate of layer t, which has these weights."""
        n_heads, d, _ = layer.query.shape
        return self.gate.layer(t, n_heads, d, layer.value.shape[2] or d)

    def compose(
        self, x: np.ndarray, t: int, attend: Callable, samples: int | Sequence[int] = 0
    ) -> np.ndarray:
        """One layer on tokens (..., N, d), with attend(z, layer weights) for the attention.

        Hidden dropout is done here, for the numbers of the samples; `attend` does attention's.
        """
        x = real_array("tokens", x, own=(np.float32,))
        branch = attend(*self.attention_input(x, t))
        branch = self.dropout.scaled(branch, "projection", t, samples)
        return self.feed_forward(self._residual(x, branch, self.norm.layer(t), t), t, samples)

    def feed_forward(self, x: np.ndarray, t: int, samples: int | Sequence[int] = 0) -> np.ndarray:
        """What follows attention in layer t: the MLP's sub-layer, or nothing."""
        if not self.mlp.active:
            return x
        W_1, b_1, W_2, b_2 = (a.astype(x.dtype, copy=False) for a in self.mlp.layer(t, x.shape[-1]))
        activation, norm = ACTIVATIONS[self.mlp.activation], self.mlp_norm.layer(t)
        seen = self._at("before", x, norm, t)
        branch = activation(seen @ W_1 + b_1) @ W_2 + b_2
        branch = self.dropout.scaled(branch, "mlp", t, samples)
        return self._residual(x, branch, norm, t)

    def _residual(self, x: np.ndarray, branch: np.ndarray, norm: Norm, t: int) -> np.ndarray:
        """after(skip x + branch(...)), both weighted: the end of a sub-layer of layer t."""
        branch = self._at("branch", branch, norm, t)
        return self._at("after", self.residual.layer(t).joined(x, branch), norm, t)

    def _at(self, place: str, x: np.ndarray, norm: Norm, t: int) -> np.ndarray:
        return norm.apply(x) if place in self.places(t) else x

    def tokens_without_size(self, x: np.ndarray, t: int, sample: int = 0) -> np.ndarray:
        """The tokens that a norm would divide by zero in layer t, for tokens x (N, d)."""
        watched = [_Watch(self.norm.layer(t)), _Watch(self.mlp_norm.layer(t))]
        with np.errstate(all="ignore"):
            replace(self, norm=watched[0], mlp_norm=watched[1]).step(x, t, sample)
        return np.unique(np.concatenate([watch.met for watch in watched]))


def _query_and_key(x: np.ndarray, layer: LayerWeights) -> tuple[np.ndarray, np.ndarray]:
    """As they come from the weights: x (..., N, d)."""
    x = x[..., None, :, :]
    return x @ layer.query + layer.query_bias[:, None, :], x @ layer.key if layer.key.size else x


def _placement(given: object) -> str | tuple[str, ...]:
    """A name of PLACEMENTS, or one for each layer. Raises ValueError for anything else."""
    if isinstance(given, (tuple, list)):
        names = tuple(_placement(name) for name in given)
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"placements by layer are one or more names; got {shown(given)}")
        return names  # type: ignore[return-value]
    name = ALIASES.get(given, given) if isinstance(given, str) else given
    check_name("placement", name, [*PLACEMENTS, *ALIASES])
    return name  # type: ignore[return-value]


def check_dynamics(value: object) -> None:
    """Raise ValueError unless `value` is a dynamics."""
    check_instance("a dynamics", value, AttentionDynamics, "dynsim.AttentionDynamics(...)")


class _Watch(Norm):
    """Applies a norm and remembers the tokens that it could not scale."""

    def __init__(self, norm: Norm):
        self.norm, self.met = norm, np.array([], np.int64)

    def apply(self, x: np.ndarray) -> np.ndarray:
        self.met = np.union1d(self.met, np.flatnonzero(self.norm.undefined(x)))
        return self.norm.apply(x)
