"""Below the floating-point floor: tokens near consensus followed as mean, shape and log mu.

A sample far from consensus is left to the compiled engine. Once mu / ||X||_F falls below
`NEAR`, its layers are carried out on X = 1 c + s Z (`dynsim.deviation`), until it grows again.

What stays exact: log mu to about 1e-14 a layer, down to any depth. What does not: Z is one array
of floating-point numbers, so a part of the deviation that has shrunk to a share delta of the rest
is known to eps / delta. If the rest then vanishes faster (which shared weights with a
slowest mode do not do), it comes back with this error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynsim import deviation
from dynsim.deviation import Deviation
from dynsim.dynamics import PLACEMENTS, AttentionDynamics
from dynsim.engines.compiled import CompiledEngine
from dynsim.layout import common_keys
from dynsim.measures import CHEAP, deviations, observe
from dynsim.weights import LayerWeights, Network

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
    softmax_j(x_i W_Q . s k_j) applied to Z gives the new deviation, and the compiled engine does
    it. Only where all tokens attend to the same others is the result smaller than its parts; then
    `deviation.attended_alike` computes it.
    """

    def __init__(self, dynamics: AttentionDynamics, threads: int):
        reason = reason_against(dynamics, np.float64)
        if reason is not None:
            raise ValueError(f"the logscale engine does not apply: {reason}; use engine='numba'")
        self.dynamics = dynamics
        self._plain = CompiledEngine(dynamics, threads)
        stretched = AttentionDynamics(dynamics.mask, _Stretched(dynamics.weights))
        self._attention = CompiledEngine(stretched, threads)
        self._keys = common_keys(dynamics.layout)

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
        return self._filed(state, self.observe(state))

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

    def attention_entropy(self, state: Deviation, t: int) -> np.ndarray:
        return self._plain.attention_entropy(state.tokens, t)

    # --- layers -----------------------------------------------------------------------------------

    def advance(self, state: Deviation, start: int, stop: int):
        observed = []
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            while start < stop:
                step = self._far if state.is_whole.all() else self._one_layer
                state, seen = step(state, start, stop)
                state = self._filed(state, seen[..., -1])
                observed.append(seen)
                start += seen.shape[-1]
        return state, np.concatenate(observed, axis=-1)

    def _filed(self, state: Deviation, seen: np.ndarray) -> Deviation:
        """Samples that came near consensus split, those that went far from it whole."""
        mu, size, whole = seen[_MU], seen[_FROBENIUS], state.is_whole
        come, gone = whole & (mu < NEAR * size), ~whole & (mu > FAR * size)
        if come.any():
            state = state.replaced(come, Deviation.split(state.shape[come]))
        if gone.any():
            state = state.replaced(gone, Deviation.whole(state[gone].tokens))
        return state

    def _far(self, state: Deviation, start: int, stop: int):
        """All samples by the compiled engine, until the first comes near consensus."""
        x, seen = self._plain.advance(state.shape, start, stop)
        near = np.flatnonzero((seen[_MU] < NEAR * seen[_FROBENIUS]).any(axis=0))
        if len(near) and near[0] + 1 < stop - start:
            x, seen = self._plain.advance(state.shape, start, start + near[0] + 1)
        return Deviation.whole(x), np.concatenate([seen, np.log10(seen[_MU : _MU + 1])])

    def _one_layer(self, state: Deviation, t: int, stop: int):
        whole = state.is_whole
        after = state.replaced(~whole, self._layer(state[~whole], t))
        if whole.any():
            x = self._plain.advance(state.shape[whole], t, t + 1)[0]
            after = after.replaced(whole, Deviation.whole(x))
        return after, self.observe(after)[..., None]

    def _layer(self, state: Deviation, t: int) -> Deviation:
        """`AttentionDynamics.compose` on deviations."""
        norm, skip = self.dynamics.norm, self.dynamics.skip
        places = PLACEMENTS[self.dynamics.placement]
        seen = deviation.normalised(state, norm) if "before" in places else state
        branch = self._attended(seen, t)
        if "branch" in places:
            branch = deviation.normalised(branch, norm)
        after = deviation.combined(state, skip, branch) if skip else branch
        return deviation.normalised(after, norm) if "after" in places else after

    def _attended(self, state: Deviation, t: int) -> Deviation:
        layer = self.dynamics.weights.layer(t, state.shape.shape[2])
        if self._keys is None:
            return self._attended_directly(state, t, layer)
        direct = ~(deviation.scores_bound(state, layer) < _DIRECT)
        if direct.all():
            return self._attended_directly(state, t, layer)
        out = state.replaced(~direct, deviation.attended_alike(state[~direct], layer, self._keys))
        if direct.any():
            out = out.replaced(direct, self._attended_directly(state[direct], t, layer))
        return out

    def _attended_directly(self, state: Deviation, t: int, layer: LayerWeights) -> Deviation:
        d = state.shape.shape[2]
        tokens = deviation.stretched(state, constant=bool(layer.query_bias.any()))
        v = self._attention.advance(tokens, t, t + 1)[0][..., :d]
        return Deviation.of(deviation.through_values(state.center, layer), v, state.log_size)


@dataclass(frozen=True, eq=False, repr=False)
class _Stretched(Network):
    """A network's weights for stretched tokens: 2 d columns, or 2 d + 1 where there is a bias."""

    given: Network

    @property
    def is_constant(self) -> bool:
        return self.given.is_constant

    def layer(self, t: int, d: int) -> LayerWeights:
        return deviation.stretched_layer(self.given.layer(t, d // 2), constant=d % 2 == 1)
