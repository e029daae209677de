"""simulate: iterate a dynamics on tokens and record what was asked for."""

from __future__ import annotations

import platform
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from dynsim import measures as measures_room
from dynsim._memory import require_memory
from dynsim._threads import blas_alone, using_threads
from dynsim._threads import threads as thread_count
from dynsim._values import check_instance, check_name, real_array, whole
from dynsim._version import __version__
from dynsim.engines import make_engine
from dynsim.measures import CHEAP, EVERY_LAYER, MEASURES, relative_floor
from dynsim.measures.costs import layer_cost, record_cost
from dynsim.network.deviation import Deviation
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.results.definition import Definition
from dynsim.results.trajectory import Trajectory

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from dynsim.engines.base import Engine, State

__all__ = ["Overflow", "Record", "Stopped", "simulate"]

#: Seconds between two looks at Ctrl-C and at whether all is finite.
_CHUNK_SECONDS = 0.25
#: Seconds of a layer up to which an interrupted run takes one more, for the last entropy.
_PATIENCE = 5.0
#: Layers, and numbers in the weights of layers, that are handed over at once at most.
_CHUNK_LAYERS, _CHUNK_WEIGHTS = 65_536, 4_000_000
#: The budget of the stride "auto": a share of the layers' cost, or, for states of few numbers, a
#: cost (nanoseconds, as in `dynsim.measures.costs`).
_SHARE, _SMALL, _SMALL_COST = 0.3, 65_536, 5e7
#: Above this many tokens, measures over all pairs are recorded only when asked for by name.
_PAIRS_LIMIT = 2048
#: The one measure that needs attention: it comes with the first layer that an engine advances.
_ENTROPY = "attention_entropy"


class Overflow(FloatingPointError):
    """Tokens stopped being finite. `trajectory` holds what was computed before."""

    trajectory: Trajectory


class Stopped(KeyboardInterrupt):
    """The simulation was interrupted. `trajectory` holds what was computed before."""

    trajectory: Trajectory


@dataclass(frozen=True)
class Record:
    """What a simulation keeps.

    measures : names from `dynsim.measures.MEASURES`; by default `dynsim.measures.DEFAULT`, without
        those over all pairs when there are more than 2048 tokens. The cheap ones are always kept.
    stride : record the costly measures at every `stride`-th layer, and at the first, the middle
        and the last. "auto" is the least stride with which the records take at most .3 of the
        layers' time, or 1/20 s where a state has at most 65,536 numbers; first, middle and last are
        recorded in any case. Times are those of a model (`dynsim.measures.costs`) that knows sizes
        alone: the same call records at the same depths on every machine, whatever its load.
    states : keep the tokens themselves at every `states`-th layer, the first and the last; 0 for
        none.
    """

    measures: tuple[str, ...] | None = None
    stride: int | str = "auto"
    states: int = 0

    def __post_init__(self) -> None:
        if self.measures is not None:
            check_instance("measures to record", self.measures, (tuple, list), '("mu", "rank")')
            for name in self.measures:
                check_name("measure", name, MEASURES)
        if not (isinstance(self.stride, str) and self.stride == "auto"):
            whole("stride, unless 'auto',", self.stride, least=1)
        whole("stride of states (0 for none)", self.states, least=0)

    def costly(self, n_tokens: int) -> tuple[str, ...]:
        """The names to record on the stride, for so many tokens."""
        names = self.measures
        if names is None:
            names = measures_room.DEFAULT
            if n_tokens > _PAIRS_LIMIT:
                names = tuple(name for name in names if MEASURES[name].needs != "pairs")
        return tuple(name for name in names if name not in EVERY_LAYER)

    def check_memory(self, samples: int, n_tokens: int, depth: int) -> None:
        """Raise MemoryError when the machine cannot hold what would be recorded."""
        number = len(EVERY_LAYER) + len(self.costly(n_tokens))
        what = f"{number} measures of {samples} samples at {depth + 1} depths"
        remedy = "use fewer samples or layers; a run can go on from its `state`"
        require_memory(8.0 * number * (depth + 1) * samples, what, remedy)

    def costly_stride(self, shape: tuple[int, int, int], depth: int, pairs: int) -> int:
        """The stride for tokens of this shape, (samples, N, d), over so many layers, each of which
        has so many (query, key) pairs."""
        if self.stride != "auto":
            return int(self.stride)
        samples, n, d = shape
        budget = _SHARE * samples * depth * layer_cost(n, d, pairs)
        if samples * n * d <= _SMALL:
            budget = max(budget, _SMALL_COST)
        record = record_cost(self.costly(n), samples, n, d)
        if (depth + 1) * record <= budget:
            return 1
        others = int(budget // record) - 3  # beside the first, the middle and the last
        return depth if others < 1 else min(depth, max(2, -(-depth // others)))


def simulate(
    dynamics: AttentionDynamics,
    x0: ArrayLike | Deviation,
    depth: int,
    *,
    record: Record | None = None,
    engine: str = "numba",
    threads: int | None = None,
    device: str | None = None,
    start: int = 0,
    first_sample: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Trajectory:
    """Iterate `dynamics` for `depth` layers from the tokens `x0`.

    Parameters
    ----------
    x0 : array (N, d) or (samples, N, d), or Deviation
        Input tokens, kept in float32 if they come so, else float64. Never modified. To go on from
        a trajectory, its `state`.
    depth : int
        Number of layers T; measures come at depths 0..T.
    record : Record, optional
        What to keep.
    engine : str
        A name in `dynsim.engines.ENGINES`. "logscale" follows mu below the floating-point floor, as
        the measure log10_mu.
    threads : int, optional
        Threads to use; by default what `dynsim.set_threads` chose, or all cores. Results do not
        depend on it, those of the engine "torch" but for rounding.
    device : str, optional
        Where the engine "torch" runs: "auto" (a CUDA GPU if there is one), "cpu", "cuda", "cuda:1",
        "mps" (for float32 tokens), ...
    start : int
        Number of the first layer, for going on from a trajectory's `state`.
    first_sample : int
        Number of the first sample: `x0[s]` is sample number first_sample + s. It matters under
        dropout alone, which depends on the number. To run a part x0[a:b] of a batch as in the
        whole, give a; to run one input under several draws, give each another number.
    progress : callable, optional
        Called with the number of layers done so far.

    Raises
    ------
    ValueError
        When the input cannot be a state of the dynamics, or engine or device are not there.
    Overflow
        (a FloatingPointError) naming layer and sample when tokens stop being finite; its
        `trajectory` holds what was computed.
    Stopped
        (a KeyboardInterrupt) on Ctrl-C; its `trajectory` holds what was computed, to the bits of a
        run that ends there. A second Ctrl-C while the last state is being measured leaves the
        measures on the stride unrecorded at that depth, as far as they are missing; so is the
        entropy, which takes one more layer, where a layer takes more than five seconds.

    Examples
    --------
    >>> import dynsim
    >>> pure = dynsim.AttentionDynamics(dynsim.masks.complete(4), dynsim.weights.Identity())
    >>> x0 = dynsim.tokens.gaussian(samples=2, n=4, d=3, seed=0)
    >>> bool((dynsim.simulate(pure, x0, depth=2)["mu"][:, -1] < 1e-15).all())
    True
    """
    check_dynamics(dynamics)
    record = Record() if record is None else record
    check_instance("record", record, Record, 'dynsim.Record(measures=("mu",))')
    if progress is not None:
        check_instance("progress", progress, Callable, "print, a function of a number")
    if device is not None:
        check_instance("device", device, str, '"cpu"')
    if isinstance(x0, Deviation) and np.isnan(x0.log_size).any():
        raise ValueError("log_size of a deviation is a number or -inf; found NaN in it")
    with np.errstate(over="ignore", invalid="ignore"):  # refused below if not finite
        x = x0.tokens if isinstance(x0, Deviation) else _as_tokens(x0)
    depth = whole("depth", depth, least=1)
    start = whole("number of the first layer", start, least=0)
    first_sample = whole("number of the first sample", first_sample, least=0)
    workers = thread_count(threads)
    dynamics.check_tokens(x)
    available = dynamics.n_layers
    if available is not None and start + depth > available:
        raise ValueError(
            f"there are weights for {available} layers; asked for {start + depth}; use depth "
            f"{available - start} or less"
        )
    record.check_memory(len(x), x.shape[1], depth)
    built = make_engine(engine, dynamics, workers, device)
    built.first_sample = first_sample
    state = built.begin(x0 if isinstance(x0, Deviation) else x)
    with blas_alone(), using_threads(workers):
        run = _Run(dynamics, x, state, depth, record, built, start)
    begun = time.perf_counter()

    def finished() -> Trajectory:
        return run.trajectory(
            {
                "engine": engine,
                "device": getattr(built, "device", "cpu"),
                "start": start,
                **({"first_sample": first_sample} if dynamics.dropout.active else {}),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "runtime_s": round(time.perf_counter() - begun, 3),
                "versions": {"dynsim": __version__, "python": platform.python_version()}
                | {n: _version(n) for n in ("numpy", "numba", *getattr(built, "packages", ()))},
                "platform": platform.platform(),
            }
        )

    def ended_early() -> Trajectory:
        with suppress(KeyboardInterrupt), blas_alone(), using_threads(workers):
            run.measure_last(patience=_PATIENCE)
        return finished()

    try:
        with blas_alone(), using_threads(workers):
            while run.t < depth:
                run.advance()
                if progress is not None:
                    progress(run.t)
            run.measure_last()
        return finished()
    except Overflow as overflow:
        overflow.trajectory = ended_early()
        raise
    except KeyboardInterrupt:
        stopped = Stopped(f"stopped after layer {start + run.t} of {start + depth}")
        stopped.trajectory = ended_early()
        raise stopped from None


_version = lru_cache(version)  # reading the metadata of a package takes milliseconds


def _as_tokens(x0: ArrayLike) -> np.ndarray:
    x = real_array("tokens", x0, own=(np.float32,))
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise ValueError(
            f"tokens are an array (N, d) or (samples, N, d), none of them 0; got shape {x.shape}"
        )
    return np.array(x[None] if x.ndim == 2 else x, order="C")  # a copy


class _Run:
    """A simulation under way: the state at layer t and what was recorded up to it."""

    def __init__(
        self,
        dynamics: AttentionDynamics,
        x: np.ndarray,
        state: State,
        depth: int,
        record: Record,
        engine: Engine,
        start: int,
    ) -> None:
        self.dynamics, self.engine, self.start, self.depth = dynamics, engine, start, depth
        self._at, self._input = (0, state), x
        self.costly = record.costly(x.shape[1])
        ends = {0, depth}
        stride = record.costly_stride(x.shape, depth, dynamics.layout.n_edges)
        self.costly_depths = ends | {depth // 2} | self._marks(stride) if self.costly else set()
        self.state_depths = ends | self._marks(record.states) if record.states else set()
        self.marks = sorted(self.costly_depths | self.state_depths | {depth})
        numbers = x.shape[2] ** 2 * dynamics.weights.n_systems
        self.most = max(1, min(_CHUNK_LAYERS, _CHUNK_WEIGHTS // numbers))
        samples, n, d = x.shape
        layer = 1e-9 * samples * layer_cost(n, d, dynamics.layout.n_edges)  # seconds, roughly
        self.chunk = max(1, min(32, self.most, int(_CHUNK_SECONDS / layer)))
        self.layer_seconds = layer
        # layer by layer, as they come; in one piece, which the system hands out in large pages
        names = (*EVERY_LAYER, *self.costly)
        memory = np.empty((len(names), depth + 1, len(x)))
        memory[len(EVERY_LAYER) :] = np.nan
        self.measures = {name: memory[k].T for k, name in enumerate(names)}
        self.states: dict[int, np.ndarray] = {}
        self._measured: int | None = None
        self._write(slice(0, 1), engine.observe(state)[..., None])
        self._record_here()

    @property
    def t(self) -> int:
        return self._at[0]

    @property
    def state(self) -> State:
        return self._at[1]

    @property
    def x(self) -> np.ndarray:
        return self.engine.tokens(self.state) if self.t else self._input

    def _marks(self, stride: int) -> set[int]:
        """Depths at multiples of `stride` of the whole run, of which this may be a later part."""
        return set(range(-self.start % stride, self.depth + 1, stride))

    def advance(self) -> None:
        """On to the next depth at which something costly is recorded, or a chunk further."""
        t, state = self._at
        limit = min(t + self.chunk, self.depth)
        stop = min(limit, self.marks[bisect_right(self.marks, t)])
        wanted = _ENTROPY in self.costly and t in self.costly_depths
        begun = time.perf_counter()
        after, observed, entropy = self.engine.advance(
            state, self.start + t, self.start + stop, entropy=wanted
        )
        if wanted:
            self.measures[_ENTROPY][:, t] = entropy
        self.layer_seconds = max(time.perf_counter() - begun, 1e-9) / (stop - t)
        fitting = int(_CHUNK_SECONDS / self.layer_seconds)
        self.chunk = max(1, min(fitting, 8 * self.chunk, self.most))
        finite = np.isfinite(observed[CHEAP.index("frobenius_norm")])
        if not finite.all():
            layers, sample = (int(v) for v in np.argwhere(~finite.T)[0])
            if layers:
                state, observed, _ = self.engine.advance(
                    state, self.start + t, self.start + t + layers
                )
                self._keep(t + layers, state, observed)
            raise Overflow(self._what_was_lost(self.x[sample], sample))
        self._keep(stop, after, observed)
        self._record_here()

    def _what_was_lost(self, x: np.ndarray, sample: int) -> str:
        """Why the next layer takes the tokens x, (N, d), of a sample out of the finite numbers."""
        layer = self.start + self.t
        saved = f"what was computed up to depth {layer} is kept"
        if len(x) <= _PAIRS_LIMIT:  # the definition is dense
            number = self.engine.first_sample + sample
            for token in self.dynamics.tokens_without_size(x, layer, number):
                return (
                    f"token {token} of sample {sample} has no size left for the norm to divide by "
                    f"in layer {layer + 1}; {saved}; change weights or input, or use eps > 0"
                )
            if not self.dynamics.normalises_queries(x, layer):
                return (
                    f"a query or key of sample {sample} has no size left for QK-norm to divide by "
                    f"in layer {layer + 1}; {saved}; change weights or input, or use eps > 0"
                )
        return (
            f"tokens of sample {sample} stopped being finite in layer {layer + 1}; {saved}; "
            f"normalise, or use weights of smaller norm"
        )

    def _keep(self, stop: int, state: State, observed: np.ndarray) -> None:
        self._write(slice(self.t + 1, stop + 1), observed)
        self._at = (stop, state)  # in one step: Ctrl-C finds state and measures in agreement

    def _write(self, depths: slice, observed: np.ndarray) -> None:
        """What an engine observed, (5 or 7, samples, depths)."""
        if len(observed) == len(CHEAP):
            mu, frobenius = (observed[CHEAP.index(name)] for name in ("mu", "frobenius_norm"))
            with np.errstate(divide="ignore", invalid="ignore"):
                error = relative_floor(mu, frobenius, self.x.dtype)
                observed = np.stack([*observed, np.log10(mu), error])
        for name, values in zip(EVERY_LAYER, observed, strict=True):
            self.measures[name][:, depths] = values

    def _record_here(self) -> None:
        if self.t in self.state_depths:
            self.states[self.t] = self.x.copy()
        if self.t in self.costly_depths:
            self._record_costly()

    def _record_costly(self) -> None:
        x, sigma = self.x, {}
        for name in self.costly:
            measure = MEASURES[name]
            if measure.needs == "attention":
                continue  # the next layer tells
            elif measure.needs in ("singular values", "deviations"):
                if measure.needs not in sigma:
                    apart = measure.needs == "deviations"
                    whose = self.engine.deviations(self.state) if apart else x
                    sigma[measure.needs] = measures_room.singular_values(whose)
                values = measure.formula(sigma[measure.needs])
            elif measure.function is not None:
                values = measure.function(x)
            self.measures[name][:, self.t] = values
        self._measured = self.t

    def measure_last(self, patience: float = np.inf) -> None:
        """The costly measures of the state now, as far as they are not recorded yet; the entropy
        only where a layer takes at most so many seconds."""
        if self._measured != self.t:
            self._record_costly()
        layer = self.start + self.t
        unknown = _ENTROPY in self.costly and np.isnan(self.measures[_ENTROPY][:, self.t]).any()
        if unknown and layer != self.dynamics.n_layers and self.layer_seconds <= patience:
            entropy = self.engine.advance(self.state, layer, layer + 1, entropy=True)[2]
            self.measures[_ENTROPY][:, self.t] = entropy

    def trajectory(self, provenance: dict) -> Trajectory:
        if self.state_depths:
            self.states[self.t] = self.x.copy()
        x = self.x
        shape = (len(x), 0, *x.shape[1:])
        states = list(self.states.values())
        return Trajectory(
            measures={name: values[:, : self.t + 1] for name, values in self.measures.items()},
            final=x,
            deviation=self.engine.deviation(self.state),
            states=np.stack(states, axis=1) if states else np.empty(shape, x.dtype),
            state_depths=np.array(list(self.states), np.int64),
            dynamics=self.dynamics.description,
            provenance=provenance,
            definition=Definition.of(self.dynamics),
        )
