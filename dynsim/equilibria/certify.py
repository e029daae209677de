"""Certificates of equilibria: a mask, matrices, tokens and claims as plain numbers.

What is claimed is measured in floating point; that it is true is for `dynsim.equilibria.proof` to
prove, which sees the numbers alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dynsim import __version__
from dynsim.dynamics import AttentionDynamics
from dynsim.equilibria.proof import FORMAT, check
from dynsim.files import written_whole
from dynsim.jacobian import jacobian
from dynsim.norms import Unit
from dynsim.values import real_array

__all__ = ["certify", "save_certificate"]


def certify(dynamics: AttentionDynamics, x: np.ndarray, radius: float = 1e-10) -> dict:
    """A checked certificate for the equilibrium or sign flip near x, (N, d).

    Claims the rank of x to a tolerance of 1e-6, and the side of 1 of the spectral radius.

    Raises
    ------
    ValueError
        For layers other than attention and unit norm, for dropout, and when no proof comes out: x
        is none, or a multiplier is (almost) 1, as in the Jordan family, whose equilibria are
        multiple roots; and beyond the sizes of certificates (`dynsim.equilibria.proof`).
    """
    dynamics.require_deterministic("a certificate of an equilibrium")
    plain = isinstance(dynamics.norm, Unit) and dynamics.placement == "post"
    layer = dynamics.weights.layer(0, x.shape[1]) if dynamics.weights.is_constant else None
    if not plain or dynamics.skip or dynamics.mlp.active or layer is None:
        raise ValueError("certificates are for layers of attention and unit norm, alike in depth")
    if layer.query_bias.any() or layer.output_bias.any():
        raise ValueError("certificates are for layers without biases")
    x = real_array("tokens", x)
    certificate = {
        "format": FORMAT,
        "made_by": f"dynsim {__version__}",
        "allowed": dynamics.allowed().astype(int).tolist(),
        "M": layer.M.tolist(),
        "W_V": layer.W_V.tolist(),
        "tokens": x.tolist(),
        "sign": 1 if np.sum(dynamics.step(x) * x) > 0 else -1,
        "radius": radius,
    }
    rank = int(np.linalg.matrix_rank(x, tol=1e-6))
    slope = jacobian(dynamics, x).reshape(x.size, x.size)
    side = "< 1" if np.abs(np.linalg.eigvals(slope)).max() < 1 else "> 1"
    certificate |= {"rank": rank, "spectral_radius": side}
    failed = [name for name, proved in check(certificate).items() if not proved]
    if failed:
        raise ValueError(
            f"no proof of: {', '.join(failed)}; the state is no equilibrium to {radius:g}, or a "
            f"multiplier is too close to 1"
        )
    return certificate


def save_certificate(certificate: dict, path) -> Path:
    """Write a certificate as JSON; its numbers keep every bit."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(certificate, allow_nan=False) + "\n")
    return Path(path)
