"""Proofs, by ball arithmetic, that equilibria exist, of their rank and of their stability.

A certificate holds a mask, matrices, tokens and claims as plain numbers; `check` proves the claims
from these alone, in arithmetic that carries rigorous error bounds (Arb, through python-flint, the
extra `certify`). Nothing that was computed in floating point is trusted.

- Existence: Krawczyk's operator K(X) = x - C G(x) + (I - C DG(X)) (X - x) of G(x) = F(x) - sign x
  maps the box X of the radius stated into its own interior, so X holds exactly one zero of G
  (Moore, Kearfott and Cloud, Introduction to Interval Analysis, theorem 8.2). C is any matrix; the
  nearer to DG(x)^-1 the better.
- Rank at least k: a k x k minor of all matrices in X is not 0.
- Spectral radius below 1: ||J^m||_F < 1 for some m and all J in DF(X); above 1: |trace J^m| > N d,
  the number of eigenvalues, for some m.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dynsim import __version__
from dynsim.dynamics import AttentionDynamics
from dynsim.files import written_whole
from dynsim.jacobian import jacobian
from dynsim.norms import Unit

__all__ = ["certify", "check", "load_certificate", "save_certificate"]

_FORMAT = "dynsim equilibrium certificate 1"
_FIELDS = {"format", "allowed", "M", "W_V", "tokens", "sign", "radius", "rank", "spectral_radius"}
#: Bits of the balls' midpoints; powers of J that are tried, as powers of two.
_BITS, _SQUARINGS = 256, 16


def certify(dynamics: AttentionDynamics, x: np.ndarray, radius: float = 1e-10) -> dict:
    """A checked certificate for the equilibrium or sign flip near x, (N, d).

    Claims the largest rank and the side of 1 of the spectral radius that can be proved.

    Raises
    ------
    ValueError
        For layers other than attention and unit norm, and when no proof comes out: x is none, or a
        multiplier is (almost) 1, as in the Jordan family, whose equilibria are multiple roots.
    """
    plain = isinstance(dynamics.norm, Unit) and dynamics.placement == "post"
    layer = dynamics.weights.layer(0, x.shape[1]) if dynamics.weights.is_constant else None
    if not plain or dynamics.skip or dynamics.mlp.active or layer is None:
        raise ValueError("certificates are for layers of attention and unit norm, alike in depth")
    if layer.query_bias.any() or layer.output_bias.any():
        raise ValueError("certificates are for layers without biases")
    x = np.asarray(x, np.float64)
    certificate = {
        "format": _FORMAT,
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


def check(certificate: dict) -> dict[str, bool]:
    """{claim in words: proved} of a certificate, from its numbers alone.

    Raises ValueError when it is not a certificate, ImportError without python-flint.
    """
    flint = _flint()
    _check_form(certificate)
    before = flint.ctx.prec
    flint.ctx.prec = _BITS
    try:
        return _Proof(flint, certificate).claims()
    finally:
        flint.ctx.prec = before


def _flint():
    try:
        import flint
    except ImportError:
        raise ImportError("certificates need python-flint; pip install 'dynsim[certify]'") from None
    return flint


def _check_form(certificate) -> None:
    if not isinstance(certificate, dict) or certificate.get("format") != _FORMAT:
        raise ValueError(f"not a certificate: its format is not {_FORMAT!r}")
    if missing := _FIELDS - set(certificate):
        raise ValueError(f"the certificate lacks {', '.join(sorted(missing))}")
    shapes = [np.shape(certificate[key]) for key in ("allowed", "M", "W_V", "tokens")]
    (n, _), heads, values, tokens = shapes
    d = tokens[-1]
    if shapes[0] != (n, n) or tokens != (n, d) or heads[1:] != (d, d) or heads != values:
        raise ValueError(f"the certificate's arrays do not fit together: shapes {shapes}")
    if certificate["sign"] not in (1, -1) or not 0 < certificate["radius"] < 1:
        raise ValueError("the certificate's sign is 1 or -1, its radius between 0 and 1")
    if certificate["spectral_radius"] not in ("< 1", "> 1"):
        raise ValueError("the certificate's spectral radius is '< 1' or '> 1'")
    if not 1 <= certificate["rank"] <= min(tokens):
        raise ValueError(f"the certificate's rank lies in 1..{min(tokens)}")


class _Proof:
    """Arithmetic on balls (arb) and matrices of them."""

    def __init__(self, flint, certificate: dict):
        self.flint, self.given = flint, certificate
        self.allowed = np.array(certificate["allowed"], bool)
        self.heads = [
            (flint.arb_mat(M), flint.arb_mat(W))
            for M, W in zip(certificate["M"], certificate["W_V"], strict=True)
        ]
        self.x = np.array(certificate["tokens"])
        self.n, self.d = self.x.shape

    def claims(self) -> dict[str, bool]:
        given, box = self.given, self._existence()
        what = "an equilibrium" if given["sign"] > 0 else "a state with x' = -x"
        found = {
            f"{what} within {given['radius']:g} of the tokens in every entry": box is not None,
            f"its rank is at least {given['rank']}": False,
            f"its spectral radius is {given['spectral_radius']}": False,
        }
        if box is None:
            return found
        exists, rank, radius = found
        slope = self._linearised(box)[1]
        return {exists: True, rank: self._has_rank(box, given["rank"]),
                radius: self._is_on_side(slope, given["spectral_radius"])}  # fmt: skip

    def _existence(self):
        """The box of the zero, (N d, 1), made small; None when there is no proof."""
        flint, size = self.flint, self.n * self.d
        centre = flint.arb_mat([[float(v)] for v in self.x.ravel()])
        ball = flint.arb(0, self.given["radius"])
        around = flint.arb_mat([[ball]] * size)
        sign, identity = self.given["sign"], flint.arb_mat(np.eye(size).tolist())
        image, slope = self._linearised(centre)
        middle = np.array((slope - sign * identity).tolist(), dtype=float).reshape(size, size)
        if np.linalg.cond(middle) > 1e14:
            return None
        C = flint.arb_mat(np.linalg.inv(middle).tolist())
        step = C * (image - sign * centre)
        for k in range(4):  # the first proves, the others make the box smaller
            _, slope = self._linearised(centre + around)
            contracted = -1 * step + (identity - C * (slope - sign * identity)) * around
            inside = all(around[i, 0].contains_interior(contracted[i, 0]) for i in range(size))
            if not inside:
                return centre + around if k else None
            around = contracted
        return centre + around

    def _linearised(self, column):
        """(F, DF) on a box of states (N d, 1): (N d, 1) and (N d, N d)."""
        arb, mat, n, d = self.flint.arb, self.flint.arb_mat, self.n, self.d
        X = mat([[column[i * d + a, 0] for a in range(d)] for i in range(n)])
        Y, inner = mat(n, d), mat(n * d, n * d)
        for M, W in self.heads:
            keyed, turned, V = X * M, X * M.transpose(), X * W
            scores = keyed * X.transpose()
            A = mat(n, n)
            for i in range(n):
                seen = [j for j in range(n) if self.allowed[i, j]]
                top = scores[i, seen[0]].mid()
                weights = [(scores[i, j] - top).exp() for j in seen]
                total = sum(weights, arb(0))
                for j, weight in zip(seen, weights, strict=True):
                    A[i, j] = weight / total
            y = A * V
            Y += y
            for i in range(n):
                seen = [j for j in range(n) if self.allowed[i, j]]
                for b in range(d):
                    away = {j: A[i, j] * (V[j, b] - y[i, b]) for j in seen}
                    for a in range(d):
                        for j in seen:
                            inner[i * d + b, j * d + a] += A[i, j] * W[a, b] + keyed[i, a] * away[j]
                        own = sum((away[j] * turned[j, a] for j in seen), arb(0))
                        inner[i * d + b, i * d + a] += own
        out, projector = mat(n * d, 1), mat(n * d, n * d)
        for i in range(n):
            size = sum((Y[i, b] * Y[i, b] for b in range(d)), arb(0)).sqrt()
            unit = [Y[i, b] / size for b in range(d)]
            for b in range(d):
                out[i * d + b, 0] = unit[b]
                for c in range(d):
                    projector[i * d + b, i * d + c] = ((b == c) - unit[b] * unit[c]) / size
        return out, projector * inner

    def _has_rank(self, box, rank: int) -> bool:
        """True when a minor of this size is not 0, the one of the best pivots."""
        from scipy.linalg import qr

        _, _, rows = qr(self.x.T, pivoting=True)
        _, _, columns = qr(self.x[rows[:rank]], pivoting=True)
        minor = [[box[int(i) * self.d + int(a), 0] for a in columns[:rank]] for i in rows[:rank]]
        return not self.flint.arb_mat(minor).det().contains(0)

    def _is_on_side(self, slope, side: str) -> bool:
        arb, size = self.flint.arb, self.n * self.d
        power = slope
        for _ in range(_SQUARINGS):
            if side == "< 1":
                entries = [power[i, j] for i in range(size) for j in range(size)]
                if sum((v * v for v in entries), arb(0)) < 1:
                    return True
            elif abs(sum((power[i, i] for i in range(size)), arb(0))) > size:
                return True
            power = power * power
        return False


def save_certificate(certificate: dict, path) -> Path:
    """Write a certificate as JSON; its numbers keep every bit."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(certificate, allow_nan=False) + "\n")
    return Path(path)


def load_certificate(path) -> dict:
    """Read a certificate. Raises ValueError when there is none at `path`."""
    try:
        certificate = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise ValueError(f"{path}: not a JSON file") from None
    _check_form(certificate)
    return certificate
