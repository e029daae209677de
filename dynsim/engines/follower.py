"""Below the floating-point floor: tokens near consensus followed as first token, shape and log mu.

A sample far from consensus is left to the compiled engine. Once mu / ||X||_F falls below
`NEAR`, its layers are carried out on X = 1 c + s Z (`dynsim.deviation`), until it grows again.
A mask that passes information one way, step by step, as the causal window does, is followed so from
the start: under it early tokens agree to 1e-16 and less long before late ones begin to, and what
they still differ by decides what comes later.

What stays exact: log mu to about 1e-14 a layer, down to any depth. What does not: Z is one array
of floating-point numbers, so a part of the deviation that has shrunk to a share delta of the rest
is known to eps / delta. If the rest then vanishes faster (which shared weights with a
slowest mode do not do), it comes back with this error.

A layer that loses more than 1e3 of mu / ||X|| at once, as strong scores do when all tokens come to
attend to one key, would lose as many digits. It is carried out again on deviations from the token
that is attended to most, which are small from the start. What this does not mend is estimated: each
layer adds eps times what it loses, and eps times the size of its scores, to the error of log10 mu.
What becomes of these errors in later layers is not in it (`dynsim.engines.logscale`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dynsim.engines.compiled import CompiledEngine
from dynsim.kernels.fields import DIRECT
from dynsim.masks.connectivity import is_strongly_connected
from dynsim.masks.layout import common_keys, has_common_key
from dynsim.measures import CHEAP, floor, observe
from dynsim.network.deviation import Deviation
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.ensemble import by_system

__all__ = ["Follower"]

#: Samples below this share mu / ||X||_F are followed as deviations, above the other as tokens.
NEAR, FAR = 0.05, 0.1
#: Layers that lose more of mu / ||X|| than this are carried out with care.
LOSS = 1e3
_MU, _FROBENIUS, _LARGEST = (CHEAP.index(name) for name in ("mu", "frobenius_norm", "norm_max"))
_LN10 = np.log(10.0)
#: Factors by which tokens are moved to see what rounding does.
_SCALES = tuple(1.0 + k * float(np.finfo(np.float64).eps) for k in (5.0, 23.0, 111.0))
#: Attention weights, in numbers, that are looked at together.
_AT_ONCE = 2**22
#: Rounding of a layer's sums, relative to their parts.
_ROUNDING = float(floor(1.0))


class Follower:
    """State: a `Deviation`. The bits of a sample do not depend on batch or threads.

    What is observed of it are the measures of CHEAP, log10 mu and the error of that,
    (len(CHEAP) + 2, samples).

    Attention between deviations is plain attention: row-constant scores cancel in the softmax, so
    softmax_j(x_i W_Q . s k_j) applied to Z gives the new deviation. Only where all tokens attend to
    the same others, and none keeps a part of itself, is the result smaller than its parts; then
    the kernel computes `deviation.attention_to_common_keys`.
    """

    def __init__(self, dynamics: AttentionDynamics, threads: int):
        self.dynamics = dynamics
        self._plain = CompiledEngine(dynamics, threads)
        self._common_keys = (
            not dynamics.residual.has_skip and common_keys(dynamics.layout) is not None
        )
        by_steps = not has_common_key(dynamics.layout) and not is_strongly_connected(dynamics.mask)
        self._near, self._far = (np.inf, np.inf) if by_steps else (NEAR, FAR)

    def begin(self, state: Deviation) -> Deviation:
        """The state in the form that fits it, with what is observed of it."""
        state = self._filed(state, self._observe(state)[..., None])
        return state.with_observed(self._observe(state).T)

    def _observe(self, state: Deviation) -> np.ndarray:
        seen, log_mu = observe(state.tokens), state.log_mu
        near = ~state.is_whole
        seen[_MU, near] = np.exp(log_mu[near])
        return np.vstack([seen, log_mu / _LN10, np.zeros(len(log_mu))])

    # --- layers -----------------------------------------------------------------------------------

    def advance(
        self, state: Deviation, start: int, stop: int, entropy: bool = False
    ) -> tuple[Deviation, np.ndarray, np.ndarray | None]:
        """As far at once as no sample changes between tokens and deviation, or needs care."""
        self._dim = state.shape.shape[2]
        observed, entropies, span = [], None, stop - start
        if entropy:
            entropies = self._plain.advance(state.tokens, start, start + 1, entropy=True)[2]
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            before = state.observed.T
            while start < stop:
                layers = min(span, stop - start)
                after, seen = self._stretch(state, before, start, start + layers)
                changes = np.any(self._to_split(state, seen) | self._to_join(state, seen), axis=0)
                careful = self._losing(before, seen)
                first = int(np.argmax(np.append(changes | careful.any(axis=0), True)))
                span = 2 * layers
                if first < layers and careful[:, first].any():
                    if first:
                        span = first
                        after, seen = self._stretch(state, before, start, start + span)
                    else:
                        span = 1
                        after, seen = self._with_care(state, before, start, careful[:, 0])
                elif first + 1 < layers:
                    span = first + 1
                    after, seen = self._stretch(state, before, start, start + span)
                state, before = self._filed(after, seen), seen[..., -1]
                observed.append(seen)
                start += seen.shape[-1]
        return state, np.concatenate(observed, axis=-1), entropies

    def _stretch(
        self, state: Deviation, before: np.ndarray, start: int, stop: int
    ) -> tuple[Deviation, np.ndarray]:
        """(state, observed) after layers without a change; `before` is what was observed last."""
        whole, every = state.is_whole, np.arange(len(state.log_size))
        after, seen = state, np.empty((len(before), len(whole), stop - start))
        if whole.any():
            x, cheap, _ = self._plain.advance(state.shape[whole], start, stop, samples=every[whole])
            seen[:-2, whole], seen[-2, whole] = cheap, np.log10(cheap[_MU])
            moved = Deviation.whole(x).with_observed(state.observed[whole])
            after = after.replaced(whole, moved)
        if not whole.all():
            near, seen[:-1, ~whole] = self._followed(state[~whole], every[~whole], start, stop)
            after = after.replaced(~whole, near)
        losses = np.where(seen[_FROBENIUS] > 0, seen[_FROBENIUS] / seen[_MU], 1.0)
        if not whole.all():
            losses[~whole] = self._losses(before[:, ~whole], seen[:, ~whole], every[~whole], start)
        # one after another, so that it does not matter where a stretch begins
        added = np.hstack([before[-1, :, None], _ROUNDING / _LN10 * losses])
        seen[-1] = np.cumsum(added, axis=1)[:, 1:]
        return after.with_observed(seen[..., -1].T), seen

    # --- what a layer loses -----------------------------------------------------------------------

    def _losses(
        self, before: np.ndarray, seen: np.ndarray, samples: np.ndarray, start: int
    ) -> np.ndarray:
        """By how much every layer's deviations are smaller than their parts, (samples, layers).

        mu / ||X|| before over that after; 1 where attention is a difference to a common row, whose
        parts are as small. Times 1 and the size of the scores, where it is large.
        """
        earlier = np.concatenate([before[..., None], seen[..., :-1]], axis=-1)
        share, share_after = (one[-2] - np.log10(one[_FROBENIUS]) for one in (earlier, seen))
        loss = np.maximum(10.0 ** np.minimum(share - share_after, 300.0), 1.0)
        loss = np.where(np.isfinite(earlier[-2]), loss, 1.0)
        for k in np.flatnonzero((loss > LOSS).any(axis=0)):
            those = loss[:, k] > LOSS
            strength = self._strength(samples[those], start + int(k))
            tokens = earlier[:, those, k]
            lost = loss[those, k]
            if self._common_keys:
                lost = np.where(strength * 2.0 * tokens[_MU] ** 2 <= DIRECT, 1.0, lost)
            loss[those, k] = lost * (1.0 + _score_range(strength, tokens))
        return loss

    def _strength(self, samples: np.ndarray, t: int) -> np.ndarray:
        """The largest ||M||_F of the heads of layer t, (samples,)."""
        strength = np.empty(len(samples))
        for layer, mine in by_system(self.dynamics.weights, t, self._dim, samples):
            strength[mine] = np.linalg.norm(layer.M, axis=(1, 2)).max()
        return strength

    def _losing(self, before: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Layers that lose more than LOSS by their rounding, (samples, layers)."""
        errors = np.concatenate([before[-1, :, None], seen[-1]], axis=1)
        return np.diff(errors, axis=1) > LOSS * _ROUNDING / _LN10

    def _with_care(
        self, state: Deviation, before: np.ndarray, t: int, those: np.ndarray
    ) -> tuple[Deviation, np.ndarray]:
        """As `_stretch` for layer t, with deviations from the token that is attended to most."""
        after, seen = self._stretch(state, before, t, t + 1)
        part, samples = state[those], np.flatnonzero(those)
        known = np.abs(part.shape).max(axis=(1, 2))  # of whole samples, of the tokens themselves
        most = self._attended_most(part, samples, t)
        part = part.about(most)
        known = known / np.where(
            state.is_whole[those], np.exp(np.maximum(part.log_size, -700.0)), 1.0
        )
        carried, observed = self._followed(part, samples, t, t + 1)
        seen[:-1, those] = observed
        # sums of what is small from the start lose nothing; how large scores are still matters, and
        # what norms lose shows when all is computed again from tokens that rounding may have moved
        scores = _score_range(self._strength(samples, t), before[:, those])
        moved = self._moved(part, carried, samples, t, known, most)
        added = (_ROUNDING * (1.0 + scores) + moved) / _LN10
        error = before[-1, those] + added
        skip = self.dynamics.residual.has_skip
        if self.dynamics.weights.n_heads > 1 or skip:  # heads attend to several
            error = np.maximum(error, seen[-1, those, 0])
        seen[-1, those, 0] = error
        return after.replaced(those, carried.with_observed(seen[:, those, 0].T)), seen

    def _moved(
        self,
        state: Deviation,
        after: Deviation,
        samples: np.ndarray,
        t: int,
        known: np.ndarray,
        most: np.ndarray,
    ) -> np.ndarray:
        """By how much log mu after layer t moves when tokens move by a few rounding errors.

        known : size of the numbers whose rounding the shape may hold, (samples,)
        most : the token that the shape is about, (samples,)
        """
        others = np.arange(state.shape.shape[1])[None, :, None] != most[:, None, None]
        signs = np.random.default_rng(0).choice([-1.0, 1.0], state.shape.shape[1:])
        moved = np.zeros(len(state.log_size))
        for scale in _SCALES:
            noise = (scale - 1.0) * known[:, None, None] * signs * others
            moved_state = replace(
                state, center=scale * state.center, shape=scale * state.shape + noise
            )
            other = self._followed(moved_state, samples, t, t + 1)[0].log_mu
            both = np.isneginf(other) & np.isneginf(after.log_mu)
            moved = np.maximum(moved, np.where(both, 0.0, np.abs(other - after.log_mu)))
        for layer, mine in by_system(self.dynamics.weights, t, self._dim, samples):
            if layer.query.any() and layer.output.any():  # else tokens may well become equal
                moved[mine & np.isneginf(after.log_mu)] = np.inf
        return np.nan_to_num(moved, nan=np.inf)

    def _attended_most(self, state: Deviation, samples: np.ndarray, t: int) -> np.ndarray:
        """The token whose smallest weight over all rows and heads is largest, by sample."""
        tokens = self.dynamics.attention_tokens(state.tokens, t)
        heads, (_, n, _) = self.dynamics.weights.n_heads, tokens.shape
        several = max(1, _AT_ONCE // (heads * n * n))
        most = np.empty(len(tokens), np.int64)
        for layer, mine in by_system(self.dynamics.weights, t, self._dim, samples):
            least = [
                self.dynamics.attention_of(tokens[some], layer).min(axis=(1, 2))
                for some in np.split(np.flatnonzero(mine), range(several, mine.sum(), several))
            ]
            most[mine] = np.argmax(np.concatenate(least), axis=1)
        return most

    def _followed(
        self, state: Deviation, samples: np.ndarray, start: int, stop: int
    ) -> tuple[Deviation, np.ndarray]:
        """As `_stretch`, for samples near consensus, of these numbers."""
        plain, seen = self._plain, []
        shape = state.shape.shape
        workers, systems = plain.workers(shape, stop - start), plain.systems(len(samples), samples)
        for carrier, layers in plain.carried(shape, np.dtype(np.float64), start, stop):
            state, observed = carrier.follow(state, layers, workers, plain.every, **systems)
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
        for those, form in ((split, Deviation.split), (join, Deviation.whole)):
            if those.any():
                part = state[those]
                state = state.replaced(those, form(part.tokens).with_observed(part.observed))
        return state


def _score_range(strength: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """About by how much scores of a row differ: ||M|| times the longest token times the diameter.

    strength : ||M||, (samples,)
    observed : (measures, samples), of the tokens before the layer
    """
    return strength * observed[_LARGEST] * 1.5 * observed[_MU]


def _aligned(samples: np.ndarray, seen: np.ndarray) -> np.ndarray:
    return samples.reshape(-1, *(1,) * (seen.ndim - 2))
