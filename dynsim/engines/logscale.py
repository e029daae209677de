"""Below the floating-point floor: tokens near consensus followed as first token, shape and log mu.

A sample far from consensus is left to the compiled engine. Once mu / ||X||_F falls below
`NEAR`, its layers are carried out on X = 1 c + s Z (`dynsim.deviation`), until it grows again.
A mask that passes information one way, step by step, as the causal window does, is followed so from
the start: under it early tokens agree to 1e-16 and less long before late ones begin to, and what
they still differ by decides what comes later.

What stays exact: log mu to about 1e-14 a layer, down to any depth. What does not: Z is one array
of floating-point numbers, so a part of the deviation that has shrunk to a share delta of the rest
is known to eps / delta. If the rest then vanishes faster (which shared weights with a
slowest mode do not do), it comes back with this error. And where scores are so strong that all
tokens attend to one common key but for a share delta, what they differ by afterwards is known to
eps / delta.
"""

from __future__ import annotations

import numpy as np

from dynsim.connectivity import is_strongly_connected
from dynsim.deviation import Deviation
from dynsim.dynamics import AttentionDynamics
from dynsim.engines.compiled import CompiledEngine
from dynsim.engines.deviations import DeviationLanes, DeviationRows
from dynsim.engines.lanes import LANES_UP_TO
from dynsim.layout import has_common_key
from dynsim.measures import CHEAP, deviations, observe

__all__ = ["LogScaleEngine", "reason_against"]

#: Samples below this share mu / ||X||_F are followed as deviations, above the other as tokens.
NEAR, FAR = 0.05, 0.1
_MU, _FROBENIUS = CHEAP.index("mu"), CHEAP.index("frobenius_norm")


def reason_against(dynamics: AttentionDynamics, dtype) -> str | None:
    """Why the log-scale engine cannot follow this dynamics on tokens of this type, or None."""
    if dynamics.mlp.active:
        return "an MLP does not keep the mean and the deviation of tokens apart"
    if dtype != np.float64:
        return f"it needs float64 tokens, not {np.dtype(dtype)}"
    return None


class LogScaleEngine:
    """State: a `Deviation`. The bits of a sample do not depend on batch or threads.

    Attention between deviations is plain attention: row-constant scores cancel in the softmax, so
    softmax_j(x_i W_Q . s k_j) applied to Z gives the new deviation. Only where all tokens attend to
    the same others, and none keeps a part of itself, is the result smaller than its parts; then
    the kernel computes `deviation.attended_alike`.
    """

    def __init__(self, dynamics: AttentionDynamics, threads: int):
        reason = reason_against(dynamics, np.float64)
        if reason is not None:
            raise ValueError(f"the logscale engine does not apply: {reason}; use engine='numba'")
        self.dynamics = dynamics
        self._plain = CompiledEngine(dynamics, threads)
        by_steps = not has_common_key(dynamics.layout) and not is_strongly_connected(dynamics.mask)
        self._near, self._far = (np.inf, np.inf) if by_steps else (NEAR, FAR)

    # --- the state --------------------------------------------------------------------------------

    def begin(self, given) -> Deviation:
        if isinstance(given, Deviation):
            return given
        if given.dtype != np.float64:
            raise ValueError(
                f"the logscale engine does not apply: {reason_against(self.dynamics, given.dtype)};"
                f" use engine='numba'"
            )
        state = Deviation.whole(given)
        return self._filed(state, self.observe(state)[..., None])

    def tokens(self, state: Deviation) -> np.ndarray:
        return state.tokens

    def deviation(self, state: Deviation) -> Deviation:
        return state

    def deviations(self, state: Deviation) -> np.ndarray:
        return deviations(state.shape)

    def observe(self, state: Deviation) -> np.ndarray:
        """The measures of CHEAP and log10_mu, (len(CHEAP) + 1, samples)."""
        seen, log_mu = observe(state.tokens), state.log_mu
        near = ~state.is_whole
        seen[_MU, near] = np.exp(log_mu[near])
        return np.vstack([seen, log_mu / np.log(10.0)])

    # --- layers -----------------------------------------------------------------------------------

    def advance(self, state: Deviation, start: int, stop: int, entropy: bool = False):
        """As far at once as no sample changes between tokens and deviation."""
        observed, entropies, span = [], None, stop - start
        if entropy:
            entropies = self._plain.advance(state.tokens, start, start + 1, entropy=True)[2]
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            while start < stop:
                layers = min(span, stop - start)
                after, seen = self._stretch(state, start, start + layers)
                changes = np.flatnonzero(
                    np.any(self._to_split(state, seen) | self._to_join(state, seen), 0)
                )
                span = 2 * layers
                if len(changes) and changes[0] + 1 < layers:
                    span = int(changes[0]) + 1
                    after, seen = self._stretch(state, start, start + span)
                state = self._filed(after, seen)
                observed.append(seen)
                start += seen.shape[-1]
        return state, np.concatenate(observed, axis=-1), entropies

    def _stretch(self, state: Deviation, start: int, stop: int):
        """(state, observed) after layers without a change."""
        whole = state.is_whole
        after, seen = state, np.empty((len(CHEAP) + 1, len(whole), stop - start))
        if whole.any():
            x, cheap, _ = self._plain.advance(state.shape[whole], start, stop)
            seen[:-1, whole], seen[-1, whole] = cheap, np.log10(cheap[_MU])
            after = after.replaced(whole, Deviation.whole(x))
        if not whole.all():
            near, seen[:, ~whole] = self._followed(state[~whole], start, stop)
            after = after.replaced(~whole, near)
        return after, seen

    def _followed(self, state: Deviation, start: int, stop: int):
        """As `_stretch`, for samples near consensus."""
        plain, seen = self._plain, []
        _, n, d = state.shape.shape
        kind = DeviationLanes if n * d <= LANES_UP_TO else DeviationRows
        workers = plain.workers(state.shape.shape, stop - start)
        for carrier, layers in plain.carried(kind, state.shape, start, stop):
            state, observed = carrier.advance(state, layers, workers, plain.every)
            seen.append(observed)
        return state, np.concatenate(seen, axis=-1)

    def _to_split(self, state: Deviation, seen: np.ndarray) -> np.ndarray:
        """Where a sample that is kept whole has come near consensus."""
        return _aligned(state.is_whole, seen) & (seen[_MU] < self._near * seen[_FROBENIUS])

    def _to_join(self, state: Deviation, seen: np.ndarray) -> np.ndarray:
        """Where a sample that is split has gone far from it."""
        return ~_aligned(state.is_whole, seen) & (seen[_MU] > self._far * seen[_FROBENIUS])

    def _filed(self, state: Deviation, seen: np.ndarray) -> Deviation:
        """Each sample in the form that fits what was observed last."""
        split, join = self._to_split(state, seen[..., -1]), self._to_join(state, seen[..., -1])
        if split.any():
            state = state.replaced(split, Deviation.split(state.shape[split]))
        if join.any():
            state = state.replaced(join, Deviation.whole(state[join].tokens))
        return state


def _aligned(samples: np.ndarray, seen: np.ndarray) -> np.ndarray:
    return samples.reshape(-1, *(1,) * (seen.ndim - 2))
