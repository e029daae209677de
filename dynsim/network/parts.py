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
from dynsim.network.gates import NoGate
from dynsim.network.norms import ElementwiseNorm
from dynsim.network.positions import NoPosition
from dynsim.network.residual import Residual

if TYPE_CHECKING:
    from dynsim.network.dynamics import AttentionDynamics

__all__ = [
    "AROUND",
    "ATTENTION_PARTS",
    "PLAIN",
    "check_alike",
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
    "norm": lambda norm: not any(isinstance(one, ElementwiseNorm) for one in norm.each),
    "mlp_norm": lambda norm: not any(isinstance(one, ElementwiseNorm) for one in norm.each),
    "placement": lambda placement: placement in ("post", "pre", "peri"),
    "skip": lambda skip: not isinstance(skip, Residual),
    "gate": lambda gate: isinstance(gate, NoGate),
}

#: Those that stand around the attention: with them a layer has an exact derivative as ever.
AROUND = ("norm", "mlp_norm", "placement", "skip", "gate")


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


def check_alike(dynamics: AttentionDynamics, purpose: str) -> None:
    """Raise ValueError unless norm, skip and branch stand alike in all layers and dimensions."""
    residual = dynamics.residual
    if not (residual.is_constant and residual.are_numbers and isinstance(dynamics.placement, str)):
        raise ValueError(
            f"{purpose}: not known with weights of skip and branch, or placements, that differ by "
            f"layer or dimension; take one layer, dynamics.layer(t), or give one number for each"
        )


def _default(name: str) -> str:
    """What a dynamics holds in this field unless it is given, as an error shows it; a norm, where a
    norm is not known."""
    from dynsim.network.dynamics import AttentionDynamics

    if name in ("norm", "mlp_norm"):
        return "dynsim.norms.RMSNorm()"
    return next(repr(f.default) for f in dataclasses.fields(AttentionDynamics) if f.name == name)
