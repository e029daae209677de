"""Below the floating-point floor: tokens near consensus followed as mean, shape and log mu.

A sample far from consensus is left to the compiled engine. Once mu / ||X||_F falls below
`NEAR`, its layers are carried out on X = 1 c + s Z (`dynsim.deviation`), until it grows again.

What stays exact: log mu to about 1e-14 a layer, down to any depth. What does not: Z is one array
of floating-point numbers, so a part of the deviation that has shrunk to a share delta of the rest
is known to eps / delta. If the rest then vanishes faster (which shared weights with a
slowest mode do not do), it comes back with this error.
"""

from __future__ import annotations

import numpy as np

from dynsim import deviation
from dynsim.deviation import Deviation
from dynsim.dynamics import PLACEMENTS, AttentionDynamics
from dynsim.engines.compiled import CompiledEngine
from dynsim.engines.deviations import DeviationRows
from dynsim.layout import common_keys
from dynsim.measures import CHEAP, deviations, observe

__all__ = ["LogScaleEngine", "reason_against"]

#: Samples below this share mu / ||X||_F are followed as deviations, above the other as tokens.
NEAR, FAR = 0.05, 0.1
#: Scores between deviations above which attention, not its difference to a common row, is computed.
_DIRECT = 0.3
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
    softmax_j(x_i W_Q . s k_j) applied to Z gives the new deviation, and a kernel does it. Only
    where all tokens attend to the same others, and none keeps a part of itself, is the result
    smaller than its parts; then `deviation.attended_alike` computes it.
    """

    def __init__(self, dynamics: AttentionDynamics, threads: int):
        reason = reason_against(dynamics, np.float64)
        if reason is not None:
            raise ValueError(f"the logscale engine does not apply: {reason}; use engine='numba'")
        self.dynamics = dynamics
        self._plain = CompiledEngine(dynamics, threads)
        self._keys = None if dynamics.skip else common_keys(dynamics.layout)

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
        return _filed(state, self.observe(state)[..., None])

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
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            while start < stop:
                layers = min(span, stop - start)
                wanted = entropy and not observed
                after, seen, found = self._stretch(state, start, start + layers, wanted)
                entropies = found if wanted else entropies
                changes = np.flatnonzero(np.any(_to_split(state, seen) | _to_join(state, seen), 0))
                span = 2 * layers
                if len(changes) and changes[0] + 1 < layers:
                    span = int(changes[0]) + 1
                    after, seen, _ = self._stretch(state, start, start + span)
                state = _filed(after, seen)
                observed.append(seen)
                start += seen.shape[-1]
        return state, np.concatenate(observed, axis=-1), entropies

    def _stretch(self, state: Deviation, start: int, stop: int, entropy: bool = False):
        """Layers without a change, as `advance`."""
        whole = state.is_whole
        after, seen = state, np.empty((len(CHEAP) + 1, len(whole), stop - start))
        entropies = np.empty(len(whole)) if entropy else None
        if whole.any():
            x, cheap, found = self._plain.advance(state.shape[whole], start, stop, entropy)
            if entropy:
                entropies[whole] = found
            seen[:-1, whole], seen[-1, whole] = cheap, np.log10(cheap[_MU])
            after = after.replaced(whole, Deviation.whole(x))
        if not whole.all():
            follow = self._compiled if self._keys is None else self._alike
            near, seen[:, ~whole], found = follow(state[~whole], start, stop, entropy)
            if entropy:
                entropies[~whole] = found
            after = after.replaced(~whole, near)
        return after, seen, entropies

    def _compiled(self, state: Deviation, start: int, stop: int, entropy: bool = False):
        plain, seen, entropies = self._plain, [], []
        workers = plain.workers(state.shape.shape, stop - start)
        for carrier, layers in plain.carried(DeviationRows, state.shape, start, stop):
            wanted = entropy and not seen
            state, observed, found = carrier.advance(state, layers, workers, plain.every, wanted)
            seen.append(observed)
            entropies.append(found)
        return state, np.concatenate(seen, axis=-1), entropies[0]

    def _alike(self, state: Deviation, start: int, stop: int, entropy: bool = False):
        """Where all tokens attend to the same: attention's difference to the common row."""
        entropies = None
        if entropy:
            entropies = self._plain.advance(state.tokens, start, start + 1, entropy=True)[2]
        norm, places = self.dynamics.norm, PLACEMENTS[self.dynamics.placement]
        observed = []
        for t in range(start, stop):
            layer = self.dynamics.weights.layer(t, state.shape.shape[2])
            seen = deviation.normalised(state, norm) if "before" in places else state
            small = deviation.scores_bound(seen, layer) < _DIRECT
            after = state
            if small.any():
                branch = deviation.attended_alike(seen[small], layer, self._keys)
                if "branch" in places or "after" in places:
                    branch = deviation.normalised(branch, norm)
                after = after.replaced(small, branch)
            if not small.all():
                after = after.replaced(~small, self._compiled(state[~small], t, t + 1)[0])
            state = after
            observed.append(self.observe(state))
        return state, np.stack(observed, axis=-1), entropies


def _to_split(state: Deviation, seen: np.ndarray) -> np.ndarray:
    """Where a sample that is kept whole has come near consensus."""
    return _aligned(state.is_whole, seen) & (seen[_MU] < NEAR * seen[_FROBENIUS])


def _to_join(state: Deviation, seen: np.ndarray) -> np.ndarray:
    """Where a sample that is split has gone far from it."""
    return ~_aligned(state.is_whole, seen) & (seen[_MU] > FAR * seen[_FROBENIUS])


def _aligned(samples: np.ndarray, seen: np.ndarray) -> np.ndarray:
    return samples.reshape(-1, *(1,) * (seen.ndim - 2))


def _filed(state: Deviation, seen: np.ndarray) -> Deviation:
    """Each sample in the form that fits what was observed last."""
    split, join = _to_split(state, seen[..., -1]), _to_join(state, seen[..., -1])
    if split.any():
        state = state.replaced(split, Deviation.split(state.shape[split]))
    if join.any():
        state = state.replaced(join, Deviation.whole(state[join].tokens))
    return state
