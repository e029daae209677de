"""Below the floating-point floor: tokens followed as first token, shape and log mu.

Every layer is carried out on X = 1 c + s Z (`dynsim.deviation`).

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

from dynsim.engines.base import all_layers
from dynsim.engines.compiled import CompiledEngine
from dynsim.kernels.fields import DIRECT
from dynsim.measures import CHEAP, floor, observe
from dynsim.network.deviation import Deviation
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.ensemble import by_system

__all__ = ["Follower"]

#: The state after some layers, what is seen of each, and entropies, if asked for.
Advanced = tuple[Deviation, np.ndarray, np.ndarray | None]

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

    def begin(self, state: Deviation) -> Deviation:
        """The state with what is observed of it."""
        self._plain.prepare_to_follow(state.shape.shape)
        seen, log_mu = observe(state.tokens), state.log_mu
        seen[_MU] = np.exp(log_mu)
        return state.with_observed(np.vstack([seen, log_mu / _LN10, np.zeros(len(log_mu))]).T)

    def is_one_job(self, shape: tuple[int, ...], layers: int) -> bool:
        """Whether threads that are worth using for so many layers find no work but one's."""
        return self._plain.jobs(shape) == 1 and self._plain.workers(shape, layers) > 1

    # --- layers -----------------------------------------------------------------------------------

    def advance(self, state: Deviation, start: int, stop: int, entropy: bool = False) -> Advanced:
        """(state after the layers, observed, entropies of the first or None)."""
        self._dim, entropies = state.shape.shape[2], None
        state, samples = state.apart(), np.arange(len(state.log_size))
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            if entropy:
                _, _, entropies = self._followed(state, samples, start, start + 1, entropy)
            state, seen = self._carried(state, samples, start, stop, stop - start)
        return state, seen, entropies

    def _carried(
        self, state: Deviation, samples: np.ndarray, start: int, stop: int, span: int
    ) -> tuple[Deviation, np.ndarray]:
        """(state, observed) of these samples after the layers, which they lose much in with care.

        First `span` layers at once, then ever more, as those behind one that needs care are carried
        out again.
        """
        pieces = []
        while start < stop:
            end = min(start + span, stop)
            before = state.observed.T
            after, seen = self._stretch(state, samples, start, end)
            careful = self._losing(before, seen)
            first = np.where(careful.any(axis=1), careful.argmax(axis=1), -1)
            for k in np.unique(first[first >= 0]):
                those, t = first == k, start + int(k)
                part, mine = state[those], samples[those]
                if k:
                    part, _ = self._stretch(part, mine, start, t)
                part, seen[:, those, k] = self._with_care(part, mine, t, seen[-1, those, k])
                if t + 1 < end:
                    part, seen[:, those, k + 1 :] = self._carried(part, mine, t + 1, end, 1)
                after = after.replaced(those, part)
            pieces.append(seen)
            state, start, span = after, end, 2 * span
        return state, all_layers(pieces)

    def _stretch(
        self, state: Deviation, samples: np.ndarray, start: int, stop: int
    ) -> tuple[Deviation, np.ndarray]:
        """(state, observed) of these samples after the layers."""
        after, seen, _ = self._followed(state, samples, start, stop)
        before = state.observed.T
        losses = self._losses(before, seen, samples, start)
        # one after another, so that it does not matter where a stretch begins
        added = np.hstack([before[-1, :, None], _ROUNDING / _LN10 * losses])
        seen[-1] = np.cumsum(added, axis=1)[:, 1:]
        return after.with_observed(seen[..., -1].T), seen

    # --- what a layer loses -----------------------------------------------------------------------

    def _losses(
        self, before: np.ndarray, seen: np.ndarray, samples: np.ndarray, start: int
    ) -> np.ndarray:
        """By how much every layer's deviations are smaller than their parts, (samples, layers).

        mu / ||X|| before over that after; where attention is a difference to a common row, its
        parts are smaller by the scores between deviations. Times 1 and the size of the scores,
        where it is large. `before` is what was observed, `seen` what `_followed` did.
        """
        sizes = np.concatenate([before[_FROBENIUS, :, None], seen[_FROBENIUS]], axis=1)
        log_mu = _LN10 * np.concatenate([before[-2, :, None], seen[-2]], axis=1)
        ratio = np.exp(np.minimum(log_mu[:, :-1] - log_mu[:, 1:], 690.0))
        ratio *= sizes[:, 1:] / sizes[:, :-1]
        loss = np.maximum(np.where(seen[-1] <= DIRECT, seen[-1], 1.0) * ratio, 1.0)
        loss[~np.isfinite(log_mu[:, :-1])] = 1.0
        for k in np.flatnonzero((loss > LOSS).any(axis=0)):
            those = loss[:, k] > LOSS
            tokens = before[:, those] if k == 0 else seen[:, those, k - 1]
            strength = self._strength(samples[those], start + int(k))
            loss[those, k] *= 1.0 + _score_range(strength, tokens)
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
        self, state: Deviation, samples: np.ndarray, t: int, error: np.ndarray
    ) -> tuple[Deviation, np.ndarray]:
        """(state, observed) after layer t, with deviations from the token that is attended to most.

        error : that of log10 mu if the layer is carried out as others are
        """
        before, known = state.observed.T, np.abs(state.shape).max(axis=(1, 2))
        most = self._attended_most(state, samples, t)
        state = state.about(most)
        after, seen, _ = self._followed(state, samples, t, t + 1)
        # sums of what is small from the start lose nothing; how large scores are still matters, and
        # what norms lose shows when all is computed again from tokens that rounding may have moved
        scores = _score_range(self._strength(samples, t), before)
        moved = self._moved(state, after, samples, t, known, most)
        careful = before[-1] + (_ROUNDING * (1.0 + scores) + moved) / _LN10
        if self.dynamics.weights.n_heads > 1 or self.dynamics.residual.has_skip:
            careful = np.maximum(careful, error)  # heads attend to several
        seen[-1, :, 0] = careful
        return after.with_observed(seen[..., 0].T), seen[..., 0]

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
        rng, moved = np.random.default_rng(0), np.zeros(len(state.log_size))
        for scale in _SCALES:
            # of other directions each time: a norm takes away what lies in some
            direction = rng.standard_normal(state.shape.shape[1:])
            noise = (scale - 1.0) * known[:, None, None] * direction * others
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
        self, state: Deviation, samples: np.ndarray, start: int, stop: int, entropy: bool = False
    ) -> Advanced:
        """(state after the layers, seen, entropies of the first or None), of these samples.

        Seen are the measures of CHEAP, log10 mu and, where keys are in common, the largest scores
        between deviations.
        """
        plain, entropies = self._plain, []
        seen: list[np.ndarray] = []
        shape = state.shape.shape
        workers, systems = plain.workers(shape, stop - start), plain.systems(len(samples), samples)
        for carrier, layers in plain.carried(shape, np.dtype(np.float64), start, stop):
            wanted = entropy and not seen
            state, observed, found = carrier.follow(
                state, layers, workers, plain.every, wanted, **systems
            )
            seen.append(observed)
            entropies.append(found)
        return state, all_layers(seen), entropies[0]


def _score_range(strength: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """About by how much scores of a row differ: ||M|| times the longest token times the diameter.

    strength : ||M||, (samples,)
    observed : (measures, samples), of the tokens before the layer
    """
    return strength * observed[_LARGEST] * 1.5 * observed[_MU]
