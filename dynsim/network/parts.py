"""Which parts of a dynamics the papers' layers do not have, and who can deal with them.

`PLAIN` says of each field what the papers' networks have there. Whatever is computed from a theory
of these calls `check_plain` first: a part it was not made for is refused by name. What reads the
definition alone (`simulate`, measures) needs no such check.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from dynsim._values import shown
from dynsim.network.attention import NoQKNorm, Softmax
from dynsim.network.positions import NoPosition

if TYPE_CHECKING:
    from dynsim.network.dynamics import AttentionDynamics

__all__ = [
    "ATTENTION_PARTS",
    "PLAIN",
    "check_plain",
    "first_unknown",
    "reason_against",
    "unusual_parts",
]

#: The fields of `PLAIN` that belong to attention itself.
ATTENTION_PARTS = ("position", "kind", "qk_norm")

#: Every field that may hold what the papers' layers do not have: whether a value is plain.
PLAIN: dict[str, Callable[[Any], bool]] = {
    "position": lambda position: isinstance(position, NoPosition),
    "kind": lambda kind: kind == Softmax(),
    "qk_norm": lambda norm: isinstance(norm, NoQKNorm),
}


def unusual_parts(dynamics: AttentionDynamics) -> dict[str, Any]:
    """The fields of a dynamics that are not plain, with what they hold.

    >>> from dynsim import AttentionDynamics, masks, positions, weights
    >>> unusual_parts(
    ...     AttentionDynamics(masks.causal(3), weights.Identity(), position=positions.Decay(0.5))
    ... )
    {'position': Decay(rate=0.5)}
    """
    held = {name: getattr(dynamics, name) for name in PLAIN}
    return {name: value for name, value in held.items() if not PLAIN[name](value)}


def check_plain(
    dynamics: AttentionDynamics, purpose: str, allows: Collection[str | type] = ()
) -> None:
    """Raise ValueError where a dynamics has a part that `purpose` is not known for.

    purpose : what the caller computes, as in "a late rate"
    allows : fields (names) or kinds of parts (classes) that it can deal with
    """
    name = first_unknown(dynamics, allows)
    if name is not None:
        raise ValueError(
            f"{purpose}: not known with {name}={shown(getattr(dynamics, name))}; leave it out, "
            f"{name}={_default(name)}"
        )


def first_unknown(dynamics: AttentionDynamics, allows: Collection[str | type] = ()) -> str | None:
    """The first field with a part that is not allowed, or None."""
    names = {name for name in allows if isinstance(name, str)}
    kinds = tuple(kind for kind in allows if isinstance(kind, type))
    for name, value in unusual_parts(dynamics).items():
        if name not in names and not isinstance(value, kinds):
            return name
    return None


def reason_against(dynamics: AttentionDynamics, allows: Collection[str | type] = ()) -> str | None:
    """Why an engine that knows these parts cannot carry out a dynamics, or None."""
    name = first_unknown(dynamics, allows)
    return None if name is None else f"it does not know {name}={shown(getattr(dynamics, name))}"


def _default(name: str) -> str:
    """What a dynamics holds in this field unless it is given, as an error shows it."""
    from dynsim.network.dynamics import AttentionDynamics

    return next(repr(f.default) for f in dataclasses.fields(AttentionDynamics) if f.name == name)
