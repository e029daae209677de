"""What stands around attention: the place of the norm, and weights of skip and branch by layer.

    x' = after(skip x + branch f(before(x)))

A number as `skip` of a dynamics stands for that weight of the skip connection, and 1 for that of
the branch. `Residual` holds both, each for all layers or for every one, and for all dimensions or
for each:

    layer_scale(l)    skip 1, branch l             LayerScale, arXiv 2103.17239
    deepnorm(L)       skip (2 L)^(1/4), branch 1   DeepNorm, arXiv 2203.00555
    lerp(alpha)       skip 1 - alpha, branch alpha  nGPT, arXiv 2410.01131
    depth_scaled(L)   skip 1, branch 1 / sqrt(L)   NOCI, arXiv 2206.03126
    by_layer(...)     given lists

A skip weight lambda other than 1 (lambda-skip, arXiv 2410.10609) is a number, or a list by layer.
LayerNorm scaling (arXiv 2502.05795) divides what a norm gives, not what the branch gives: that is
`dynsim.norms.ln_scaling`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dynsim._values import (
    Value,
    check_name,
    entry_of_layer,
    real_array,
    real_number,
    shown,
    unknown,
    whole,
)
from dynsim._words import build

__all__ = [
    "ALIASES",
    "MIXES",
    "PLACEMENTS",
    "SKIPS",
    "Residual",
    "ResidualWeights",
    "by_layer",
    "deepnorm",
    "depth_scaled",
    "layer_scale",
    "lerp",
    "mix_ln",
    "read_placement",
    "read_skip",
]

#: Where the norm stands in one sub-layer, x' = after(skip x + branch(f(before(x)))).
PLACEMENTS = {
    "post": ("after",),
    "pre": ("before",),
    "peri": ("before", "branch"),
    "ngpt": ("branch", "after"),
}
#: Other names: Sandwich-LN (arXiv 2105.13290), x' = x + LN(f(LN(x))), is one layer of Peri-LN
#: (arXiv 2502.02732), which has a norm of the embedding and one at the end besides.
ALIASES = {"sandwich": "peri"}

#: A number for all dimensions, or one for each.
Weight = float | np.ndarray


class ResidualWeights(NamedTuple):
    """The weights of one layer: numbers, or one for each dimension (d,)."""

    skip: Weight
    branch: Weight

    @property
    def are_numbers(self) -> bool:
        return np.ndim(self.skip) == 0 and np.ndim(self.branch) == 0

    @property
    def has_skip(self) -> bool:
        return isinstance(self.skip, np.ndarray) or bool(self.skip)

    @property
    def branch_has_weight(self) -> bool:
        return isinstance(self.branch, np.ndarray) or self.branch != 1.0

    def joined(self, x: np.ndarray, branch: np.ndarray) -> np.ndarray:
        """skip x + branch, weighted, for tokens (..., N, d), in their own precision."""
        skip, weight = (
            w.astype(x.dtype, copy=False) if isinstance(w, np.ndarray) else w for w in self
        )
        branch = weight * branch if self.branch_has_weight else branch
        return skip * x + branch if self.has_skip else branch


@dataclass(frozen=True, eq=False, repr=False)
class Residual(Value):
    """Weights of skip connection and branch.

    Parameters
    ----------
    skip, branch : float or array
        A number; (d,), one for each dimension; (layers, 1) or (layers, d), a row for each layer. A
        single row serves all layers.

    Raises
    ------
    ValueError
        For entries that are not finite, other shapes, and different numbers of layers.

    Examples
    --------
    >>> Residual(skip=1.0, branch=0.1).layer(7)
    ResidualWeights(skip=1.0, branch=0.1)
    >>> by_layer(skip=[1.0, 0.5]).layer(1)
    ResidualWeights(skip=0.5, branch=1.0)
    """

    skip: float | np.ndarray = 1.0
    branch: float | np.ndarray = 1.0

    def __post_init__(self) -> None:
        for name in ("skip", "branch"):
            given = self._freeze_array(name)
            if given.ndim == 2 and len(given) == 1:  # one row serves all layers
                object.__setattr__(self, name, given[0])
            if given.ndim > 2 or not given.size or not np.all(np.isfinite(given)):
                raise ValueError(
                    f"the {name} weight is finite: a number, one for each dimension (d,), or a "
                    f"row for each layer (layers, 1) or (layers, d); got {shown(given)}"
                )
        rows = [len(given) for given in self._by_layer]
        if len(set(rows)) > 1:
            raise ValueError(
                f"weights by layer are given for the same layers; got {rows[0]} of the skip "
                f"connection and {rows[1]} of the branch"
            )

    @property
    def _by_layer(self) -> list[np.ndarray]:
        return [given for given in (np.asarray(self.skip), np.asarray(self.branch))
                if given.ndim == 2]  # fmt: skip

    @property
    def n_layers(self) -> int | None:
        """How many layers there are weights for; None when there is no end."""
        return len(self._by_layer[0]) if self._by_layer else None

    @cached_property
    def is_constant(self) -> bool:
        """True when all layers have the same weights."""
        return not self._by_layer

    @property
    def has_skip(self) -> bool:
        """True when some layer has a skip connection."""
        return bool(np.any(self.skip))

    @property
    def are_numbers(self) -> bool:
        """True when no dimension has a weight of its own."""
        return all(np.asarray(w).shape[-1:] in ((), (1,)) for w in (self.skip, self.branch))

    def check(self, d: int) -> None:
        """Raise ValueError unless the weights fit tokens of dimension d."""
        for name in ("skip", "branch"):
            width = np.asarray(getattr(self, name)).shape[-1:]
            if width not in ((), (1,), (d,)):
                raise ValueError(
                    f"the {name} weight has one entry per dimension; got {width[0]} for tokens of "
                    f"dimension {d}; give {d} numbers or one"
                )

    def layer(self, t: int) -> ResidualWeights:
        """The weights of layer t (the first is 0)."""
        each = self._each
        return each[0] if len(each) == 1 else entry_of_layer("weights of skip and branch", each, t)

    @cached_property
    def _each(self) -> tuple[ResidualWeights, ...]:
        """The weights of the layers, or those that serve them all."""

        def rows(given: Weight) -> list[Weight]:
            given = np.asarray(given)
            listed = given if given.ndim == 2 else [given] * (self.n_layers or 1)
            return [float(row.item()) if row.size == 1 else row for row in listed]

        both = zip(rows(self.skip), rows(self.branch), strict=True)
        return tuple(ResidualWeights(*weights) for weights in both)


def by_layer(
    skip: float | Sequence[float] = 1.0, branch: float | Sequence[float] = 1.0
) -> Residual:
    """A list of weights for the layers in order, of the skip connection, the branch or both.

    Layers beyond the lists are refused. `skip` by layer is lambda-skip with a lambda of its own in
    every layer (arXiv 2410.10609).

    Raises ValueError as `Residual`.
    """

    def column(name: str, given: float | Sequence[float]) -> np.ndarray:
        array = real_array(f"the {name} weight", given)
        return array[:, None] if array.ndim == 1 else array

    return Residual(column("skip", skip), column("branch", branch))


def layer_scale(scale: float | np.ndarray = 0.1) -> Residual:
    """x + diag(scale) f(x): LayerScale (arXiv 2103.17239, which starts from 0.1 to 1e-6).

    scale : a number, one for each dimension (d,), or a row for each layer (layers, d).
    """
    return Residual(1.0, scale)


def deepnorm(layers: int) -> Residual:
    """alpha x + f(x), alpha = (2 L)^(1/4): DeepNorm of L layers of one stack (arXiv 2203.00555).

    It goes with placement "post". The other half of DeepNorm is its initialisation, which
    multiplies values, output and MLP by (8 L)^(-1/4) each: give that to the weights.

    >>> deepnorm(8).layer(0).skip
    2.0
    """
    return Residual((2.0 * whole("number of layers", layers, least=1)) ** 0.25, 1.0)


def lerp(alpha: float | np.ndarray = 0.05) -> Residual:
    """x + alpha (f(x) - x): nGPT's step (arXiv 2410.01131), which starts from alpha = 0.05.

    With placement "ngpt" and unit norm it is normalise(x + alpha (normalise(f(x)) - x)).

    alpha : a number, one for each dimension (d,), or a row for each layer (layers, d).
    """
    alpha = real_array("alpha of lerp", alpha)
    return Residual(1.0 - alpha, alpha)


def depth_scaled(layers: int) -> Residual:
    """x + f(x) / sqrt(L): branches scaled by the depth L, against rank collapse at initialisation
    (NOCI, arXiv 2206.03126)."""
    return Residual(1.0, whole("number of layers", layers, least=1) ** -0.5)


def mix_ln(share: float = 0.25, *, layers: int) -> tuple[str, ...]:
    """Mix-LN (arXiv 2412.13795): placement "post" in the first floor(share L) layers, then "pre".

    >>> mix_ln(0.5, layers=6)
    ('post', 'post', 'post', 'pre', 'pre', 'pre')
    """
    layers, share = whole("number of layers", layers, least=1), real_number("the share", share)
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"the share of layers with post-norm is from 0 to 1; got {share:g}")
    first = int(np.floor(share * layers + 1e-9))  # 0.29 of 100 layers are 29, not 28
    return ("post",) * first + ("pre",) * (layers - first)


#: Weights of skip and branch by the name that the command line gives them.
SKIPS: dict[str, Callable[..., Residual]] = {
    "deepnorm": deepnorm,
    "layerscale": layer_scale,
    "lerp": lerp,
    "depth-scaled": depth_scaled,
}
#: Placements that differ by layer, by name.
MIXES: dict[str, Callable[..., tuple[str, ...]]] = {"mix-ln": mix_ln}


def read_skip(words: str | float, layers: int | None = None) -> float | Residual:
    """The `skip` of a dynamics that words stand for: a number; A,B,..., skip weights by layer; or
    a name in `SKIPS` with its parameters.

    layers : the number of layers, unless the words give it

    >>> read_skip("0.5"), read_skip("layerscale:0.1"), read_skip("deepnorm", layers=8)
    (0.5, Residual(skip=1.0, branch=0.1), Residual(skip=2.0, branch=1.0))

    Raises ValueError for other words.
    """
    try:
        numbers = [float(cell) for cell in str(words).split(",")]
    except ValueError:
        if str(words).split(":")[0] not in SKIPS:
            raise ValueError(unknown("skip weight", words, ["a number", *SKIPS])) from None
        return build("skip", SKIPS, str(words), given=_of(layers))
    return numbers[0] if len(numbers) == 1 else by_layer(numbers)


def read_placement(words: str, layers: int | None = None) -> str | tuple[str, ...]:
    """The `placement` of a dynamics that words stand for; `layers` as in `read_skip`.

    >>> read_placement("mix-ln:0.5", layers=4)
    ('post', 'post', 'pre', 'pre')
    """
    if words.split(":")[0] in MIXES:
        return build("placement", MIXES, words, given=_of(layers))
    check_name("placement", words, [*PLACEMENTS, *ALIASES, *MIXES])
    return words


def _of(layers: int | None) -> dict[str, int]:
    return {} if layers is None else {"layers": layers}
