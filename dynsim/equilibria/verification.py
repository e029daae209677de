"""Certificates of any format: read from a file, and checked by the checker of their format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynsim.equilibria import balls, exact
from dynsim.equilibria.schema import read

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

__all__ = ["CHECKERS", "check", "load_certificate"]

#: The checker of each format: `check_form(certificate)`, `check(certificate)`.
CHECKERS = {balls.FORMAT: balls, exact.FORMAT: exact}


def check(certificate: dict) -> dict[str, bool]:
    """{claim in words: proved} of a certificate, from its numbers alone.

    What is claimed and how it is proved: `dynsim.equilibria.balls` (enclosures in balls) and
    `dynsim.equilibria.exact` (rationals and square roots).

    Parameters
    ----------
    certificate : dict
        As `certify` makes them and `load_certificate` reads them; N d is at most 256 in balls, 64
        in exact ones.

    Returns
    -------
    dict
        A claim that is not proved may be true or false.

    Raises
    ------
    ValueError
        When it is not a certificate: a field lacks, is unknown, or holds what it cannot hold.
    ImportError
        Without python-flint.

    Examples
    --------
    Two causal tokens, M = 0 and W_V = I: consensus is an equilibrium, exactly, and marginal.

    >>> consensus = {
    ...     "format": "dynsim exact equilibrium certificate 1", "allowed": [[1, 0], [1, 1]],
    ...     "W_V": [["1", "0"], ["0", "1"]], "radicands": [], "sign": 1, "rank": 1,
    ...     "tokens": [[["3/5"], ["4/5"]], [["3/5"], ["4/5"]]], "spectral_radius": "= 1",
    ... }
    >>> all(check(consensus).values()), all(check(consensus | {"rank": 2}).values())
    (True, False)
    """
    return _checker(certificate).check(certificate)


def load_certificate(path: str | Path) -> dict:
    """Read a certificate, of at most 16 MiB; its form is checked, its claims are not (`check`).

    Raises ValueError, with the path, when there is no file, or it holds no certificate.

    >>> import tempfile
    >>> from dynsim.equilibria import certify, jordan_dynamics, jordan_family, save_certificate
    >>> proof = certify(jordan_dynamics(2, 2.0), jordan_family(2, 2.0, rank=2)[0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_certificate(save_certificate(proof, f"{folder}/proof.json")) == proof
    True
    """
    certificate: Any = read(path)
    try:
        _checker(certificate).check_form(certificate)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return certificate


def _checker(certificate: object) -> ModuleType:
    name = certificate.get("format") if isinstance(certificate, dict) else None
    if not (isinstance(name, str) and name in CHECKERS):
        known = " or ".join(map(repr, CHECKERS))
        raise ValueError(f"not a certificate: its format is not {known}")
    return CHECKERS[name]
