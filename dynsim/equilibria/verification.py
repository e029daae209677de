"""Certificates of any format: read from a file, and checked by the checker of their format."""

from __future__ import annotations

from typing import Any

from dynsim.equilibria import balls, exact
from dynsim.equilibria.schema import read

__all__ = ["CHECKERS", "check", "load_certificate"]

#: The checker of each format: `check_form(certificate)`, `check(certificate)`.
CHECKERS = {balls.FORMAT: balls, exact.FORMAT: exact}


def check(certificate: dict) -> dict[str, bool]:
    """{claim in words: proved} of a certificate, from its numbers alone.

    What is claimed and how it is proved: `dynsim.equilibria.balls` (enclosures in balls) and
    `dynsim.equilibria.exact` (rationals and square roots).

    Raises ValueError when it is not a certificate, ImportError without python-flint.
    """
    return _checker(certificate).check(certificate)


def load_certificate(path) -> dict:
    """Read a certificate. Raises ValueError when there is none at `path`."""
    certificate: Any = read(path)
    try:
        _checker(certificate).check_form(certificate)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return certificate


def _checker(certificate):
    name = certificate.get("format") if isinstance(certificate, dict) else None
    if not (isinstance(name, str) and name in CHECKERS):
        known = " or ".join(map(repr, CHECKERS))
        raise ValueError(f"not a certificate: its format is not {known}")
    return CHECKERS[name]
