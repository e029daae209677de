"""What matrices of attention say by themselves: influence of positions, sinks, spectra.

All take A of shape (..., N, N): row i is how much token i attends to each token, at least 0. Rows
sum to 1, or to less where a sink outside the tokens takes a share. They come from
`AttentionDynamics.attention`, from `dynsim.collapse.influence.attention_of_run` or from a model.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dynsim._threads import blas_alone
from dynsim._values import real_array, whole

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "AttentionSpectrum",
    "attention_spectrum",
    "bulk_share",
    "position_influence",
    "sink_share",
    "uniform_causal_influence",
]

#: Rows of attention sum to 1 at most, as nearly as this.
_ROUNDING = 1e-6
#: Bits that the closed form carries beyond those that its alternating sum cancels.
_SPARE_BITS = 160


def _attention(A: ArrayLike, axes: int = 2) -> np.ndarray:
    A = real_array("matrices of attention", A, axes=axes)
    if A.shape[-1] != A.shape[-2] or not A.size:
        raise ValueError(f"matrices of attention are square, (..., N, N); got shape {A.shape}")
    sums = A.sum(axis=-1)
    if not (np.all(A >= 0) and np.all(sums <= 1.0 + _ROUNDING)):
        raise ValueError(
            f"rows of attention hold numbers of at least 0 that sum to 1 at most; got entries from "
            f"{A.min():.4g} and sums up to {sums.max():.4g}; divide each row by its sum"
        )
    return A


def checked_skips(skip: ArrayLike, layers: int) -> np.ndarray:
    """One weight of the skip connection for every layer."""
    skip = real_array("weights of the skip connection", skip)
    if skip.shape not in ((), (layers,)):
        raise ValueError(
            f"the skip connection has one weight, or one for each of the {layers} layers; got "
            f"shape {skip.shape}"
        )
    if not np.all((skip >= 0) & np.isfinite(skip)):
        raise ValueError("weights of the skip connection are finite and at least 0, as shares are")
    return np.broadcast_to(skip, (layers,))


def position_influence(A: ArrayLike, skip: ArrayLike = 0.0) -> np.ndarray:
    """How much of each output token comes from each input token: the product over layers of
    (skip I + A) / (skip + 1), the last layer on the left.

    Entry [i, j] is the share of token j in token i after all layers: exact where layers only
    average (uniform weights W_V = I, no norm), and "attention rollout" otherwise. Row -1 is the
    influence on the last token. Under a causal mask without skip it moves onto token 1 as depth
    grows (arXiv 2502.01951); with a skip it is U-shaped at first (arXiv 2602.16837).

    A : array (layers, N, N) or (layers, H, N, N)
        Attention, first layer first; heads are averaged, with equal weights.
    skip : number or array (layers,)
        Weights of the skip connection, at least 0.

    Returns (N, N); its rows sum to 1 where those of A do.

    >>> half = [[1.0, 0.0], [0.5, 0.5]]
    >>> position_influence([half, half])[-1], position_influence([half, half], skip=1.0)[-1]
    (array([0.75, 0.25]), array([0.4375, 0.5625]))
    """
    A = _attention(A, axes=3)
    if A.ndim not in (3, 4):
        raise ValueError(f"attention is (layers, N, N) or (layers, H, N, N); got shape {A.shape}")
    A = A.mean(axis=1) if A.ndim == 4 else A
    product = np.eye(A.shape[-1])
    for weight, layer in zip(checked_skips(skip, len(A)), A, strict=True):
        product = (weight * product + layer @ product) / (weight + 1.0)
    return product


def uniform_causal_influence(n: int, depth: int, skip: ArrayLike = 0.0) -> np.ndarray:
    """The influence of tokens 1..N on the last token under uniform causal attention: (N,).

    In closed form, at any depth L. Uniform causal attention C has C_ij = 1/i for j <= i, and every
    function f of it is a Hausdorff matrix, f(C)_ij = binom(i-1, j-1) sum_m (-1)^m binom(i-j, m)
    f(1 / (j+m)) (lemma `influence`). Here f(c) = prod_l (s_l + c) / (s_l + 1), s_l the skip.
    In other words: token j - 1 is binomial, of N - 1 trials with probability x, x the product of
    one uniform number for each layer that is not skipped. So the last token's own share is f(1/N),
    the mean of j - 1 is (N - 1) f(1/2), and all moves to token 1 as f(1/2) goes to 0: with skips
    of any size, unless sum_l 1 / (s_l + 1) is finite.

    The sum alternates; it is carried out in integers, with bits enough for all it cancels.

    n : tokens, at least 1. depth : layers, at least 0. skip : a number, or one for each layer.

    >>> uniform_causal_influence(2, depth=2, skip=1.0)
    array([0.4375, 0.5625])
    """
    n, depth = whole("number of tokens", n, least=1), whole("depth", depth, least=0)
    bits = 2 * n + 2 * depth.bit_length() + _SPARE_BITS
    moments = [_moment(k, checked_skips(skip, depth), bits) for k in range(1, n + 1)]
    shares = np.empty(n)
    for j in range(n, 0, -1):  # moments are the (n - j)-th differences, at 1 .. j
        shares[j - 1] = math.comb(n - 1, j - 1) * moments[-1] / (1 << bits)
        moments = [one - other for one, other in pairwise(moments)]
    return shares


def _moment(k: int, skips: np.ndarray, bits: int) -> int:
    """f(1/k) = prod_l (s_l + 1/k) / (s_l + 1), in units of 2^-bits."""
    moment = 1 << bits
    for weight, count in zip(*np.unique(skips, return_counts=True), strict=True):
        p, q = float(weight).as_integer_ratio()
        factor = (k * p + q << bits) // (k * (p + q))
        for digit in f"{count:b}"[::-1]:  # its count-th power, by squares
            moment = moment * factor >> bits if digit == "1" else moment
            factor = factor * factor >> bits
    return moment


def sink_share(A: ArrayLike, token: int = 0) -> np.ndarray:
    """The share of attention that one token gets: the mean over rows of A[..., token].

    Tokens that attend to nothing else (the first one under a causal mask) count as the others do.
    1 / N on average over tokens where attention is uniform and complete; (1 + 1/2 + ... + 1/N) / N
    for the first token where it is uniform and causal.

    A : array (..., N, N). token : its number, from 0; negative numbers count from the end.

    Returns an array (...).

    >>> float(sink_share([[1.0, 0.0], [0.5, 0.5]]))
    0.75
    """
    A = _attention(A)
    n = A.shape[-1]
    token = whole("number of a token", token, least=-n, most=n - 1)
    return A[..., token].mean(axis=-1)


class AttentionSpectrum(NamedTuple):
    """Singular values and second eigenvalue of matrices of attention, with what is left of them in
    a random matrix.

    singular_values : (..., N), largest first; the first is the outlier, near 1 for uniform
        attention under the complete mask
    second_eigenvalue : (...), the second largest modulus of the eigenvalues; the first is 1
    spread : (...), sigma = sqrt(||A||_F^2 - 1), the spread of the entries of N A
    edge : (...), 2 sigma / sqrt(N), where the bulk of a random matrix of this spread ends
    """

    singular_values: np.ndarray
    second_eigenvalue: np.ndarray
    spread: np.ndarray
    edge: np.ndarray

    @property
    def outlier(self) -> np.ndarray:
        """The largest singular value, (...)."""
        return self.singular_values[..., 0]

    @property
    def gap(self) -> np.ndarray:
        """sigma_1 - sigma_2, (...): how far the outlier stands out (arXiv 2410.07799)."""
        return self.singular_values[..., 0] - self.singular_values[..., 1]


def attention_spectrum(A: ArrayLike) -> AttentionSpectrum:
    """The spectrum of A, (..., N, N), N >= 2, and the bulk of random matrices to compare it with.

    Where the weights e^score of all N^2 entries are independent and alike, of mean m and standard
    deviation sigma m, singular values of sqrt(N) A but the first fill the quarter circle from 0 to
    2 sigma (so their squares a Marchenko-Pastur law of ratio 1), eigenvalues but the first a disc
    of radius sigma (Bordenave, Caputo and Chafai, Probab. Theory Relat. Fields 152 (2012) 751). For
    scores of variance v sigma^2 = e^v - 1. `bulk_share` is that law.

    O(N^3) work a matrix.

    >>> found = attention_spectrum([[0.75, 0.25], [0.25, 0.75]])
    >>> found.singular_values.round(12), float(found.second_eigenvalue.round(12))
    (array([1. , 0.5]), 0.5)
    """
    A = _attention(A)
    n = A.shape[-1]
    if n < 2:
        raise ValueError("a spectrum with a gap is that of two tokens or more; got one")
    with blas_alone():
        singular = np.linalg.svd(A, compute_uv=False)
        moduli = np.sort(np.abs(np.linalg.eigvals(A)), axis=-1)
    spread = np.sqrt(np.maximum(np.sum(A**2, axis=(-2, -1)) - 1.0, 0.0))
    return AttentionSpectrum(singular, moduli[..., -2], spread, 2.0 * spread / n**0.5)


def bulk_share(x: ArrayLike) -> np.ndarray:
    """The share of a random bulk's singular values below x times its edge: the quarter circle.

    (2 / pi) (x sqrt(1 - x^2) + arcsin x) for 0 <= x <= 1. The squares have the Marchenko-Pastur law
    of a square matrix.

    >>> bulk_share([0.0, 0.5, 1.0]).round(4)
    array([0.   , 0.609, 1.   ])
    """
    share = np.clip(real_array("shares of the edge", x), 0.0, 1.0)
    return 2.0 / np.pi * (share * np.sqrt(1.0 - share * share) + np.arcsin(share))
