"""Certificates of equilibria: a mask, matrices, tokens and claims as plain numbers.

What is claimed is measured in floating point; that it is true is for the checkers of
`dynsim.equilibria.verification` to prove, which see the numbers alone.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from dynsim._files import written_whole
from dynsim._values import real_array
from dynsim._version import __version__
from dynsim.equilibria import balls, exact
from dynsim.equilibria.construct import jordan_member
from dynsim.equilibria.verification import check
from dynsim.measures import SOLVED_RTOL, numerical_rank, singular_values
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.jacobian import jacobian
from dynsim.network.norms import Unit
from dynsim.network.parts import check_plain

__all__ = ["certify", "save_certificate"]


def certify(dynamics: AttentionDynamics, x: np.ndarray, radius: float = 1e-10) -> dict:
    """A checked certificate for the equilibrium or sign flip near x, (N, d).

    Claims the numerical rank of x, with `dynsim.measures.SOLVED_RTOL`, and the side of 1 of the
    spectral radius. For WU's Jordan family the certificate is exact, in rationals and square roots,
    and `radius` has no part.

    Parameters
    ----------
    dynamics : AttentionDynamics
        Attention and unit norm after it, alike in all layers, without biases.
    x : array (N, d)
        The state, to rounding.
    radius : float
        Exactly one equilibrium is claimed to lie so near to x in every entry; between 0 and 1.

    Returns
    -------
    dict
        JSON-ready, all of whose claims `dynsim.equilibria.check` has proved.

    Raises
    ------
    ValueError
        For layers other than attention and unit norm, for dropout, and when no proof comes out: x
        is none, or a multiplier is (almost) 1, as for equilibria of Jordan layers that are not of
        WU's family; and beyond the sizes of certificates.
    ImportError
        Without python-flint.

    Examples
    --------
    >>> from dynsim.equilibria import hyperbolic_dynamics, hyperbolic_pair
    >>> proof = certify(hyperbolic_dynamics(0.5, 2.0), hyperbolic_pair(0.5, 2.0)[0])
    >>> proof["rank"], proof["spectral_radius"]
    (2, '< 1')
    """
    check_dynamics(dynamics)
    dynamics.require_deterministic("a certificate of an equilibrium")
    check_plain(dynamics, "a certificate of an equilibrium")
    x = real_array("tokens", x, axes=2)
    plain = isinstance(dynamics.norm, Unit) and dynamics.placement == "post"
    layer = dynamics.weights.layer(0, x.shape[1]) if dynamics.weights.is_constant else None
    if not plain or dynamics.skip or dynamics.mlp.active or layer is None:
        raise ValueError("certificates are for layers of attention and unit norm, alike in depth")
    if layer.query_bias.any() or layer.output_bias.any():
        raise ValueError("certificates are for layers without biases")
    signs = jordan_member(dynamics, x)
    if signs is not None:
        made = _exact_member(dynamics, x, signs)
        sides = [made | {"spectral_radius": side} for side in ("= 1", "> 1")]
        proved = [one for one in sides if all(check(one).values())]
        return proved[0] if proved else _proved(sides[0], "a multiplier is too close to 1")
    certificate = {
        "format": balls.FORMAT,
        "made_by": f"dynsim {__version__}",
        "allowed": dynamics.allowed().astype(int).tolist(),
        "M": layer.M.tolist(),
        "W_V": layer.W_V.tolist(),
        "tokens": x.tolist(),
        "sign": 1 if np.sum(dynamics.step(x) * x) > 0 else -1,
        "radius": radius,
    }
    rank = int(numerical_rank(singular_values(x), SOLVED_RTOL))
    slope = jacobian(dynamics, x).reshape(x.size, x.size)
    side = "< 1" if np.abs(np.linalg.eigvals(slope)).max() < 1 else "> 1"
    certificate |= {"rank": rank, "spectral_radius": side}
    return _proved(
        certificate,
        f"the state is no equilibrium to {radius:g}, or a multiplier is too close to 1",
    )


def _proved(certificate: dict, otherwise: str) -> dict:
    failed = [name for name, proved in check(certificate).items() if not proved]
    if failed:
        raise ValueError(f"no proof of: {', '.join(failed)}; {otherwise}")
    return certificate


def _exact_member(dynamics: AttentionDynamics, x: np.ndarray, signs: tuple[int, ...]) -> dict:
    """The state of WU's family with these signs (`jordan_family`), in rationals and two roots."""
    n, rank = len(x), len(signs)
    W_V = [[Fraction(v) for v in row] for row in dynamics.weights.layer(0, n).W_V[0].tolist()]
    w, first = W_V[0][1], n - rank + 1
    squares = [1 - (beta / w) ** 2 for beta in (first, 1)] if rank > 1 else []
    terms = 2 ** len(squares)
    zero = [Fraction(0)] * terms
    tokens = [[zero] * (n - 1) + [[Fraction(signs[0]), *zero[1:]]]] * first
    for k, sign in enumerate(signs[1:]):
        beta = 1 if k else first  # |x_i| = 1, so that the last coordinate is sqrt(1 - (beta / w)^2)
        rest = [[-beta * q / w for q in entry] for entry in tokens[-1][1:]]
        last = [Fraction(sign * ((2 if k else 1) == S)) for S in range(terms)]
        tokens = [*tokens, [*rest, last]]
    return {
        "format": exact.FORMAT,
        "made_by": f"dynsim {__version__}",
        "allowed": dynamics.allowed().astype(int).tolist(),
        "W_V": [[str(v) for v in row] for row in W_V],
        "radicands": [str(p) for p in squares],
        "tokens": [[[str(q) for q in entry] for entry in row] for row in tokens],
        "sign": 1,
        "rank": rank,
    }


def save_certificate(certificate: dict, path: str | Path) -> Path:
    """Write a certificate as JSON; its numbers keep every bit.

    Returns the path. Raises ValueError for numbers that are not finite or where a folder is in the
    way, OSError where the system does not let it write. `load_certificate` reads it.
    """
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(certificate, allow_nan=False) + "\n")
    return Path(path)
