"""One run or several to compare: every check that can be made without work, then the work."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from dynsim._threads import threads as thread_count
from dynsim._values import describe, unknown
from dynsim._words import values
from dynsim.cli import options as shared
from dynsim.cli import output
from dynsim.cli.output import file_name
from dynsim.engines import check_applies, find_engine, preferred
from dynsim.masks.connectivity import MaskFacts, facts
from dynsim.measures import MEASURES
from dynsim.measures.costs import layer_cost
from dynsim.results.trajectory import Trajectory, joined, load
from dynsim.simulation import Overflow, Record, Stopped, simulate

if TYPE_CHECKING:
    import numpy as np

    from dynsim.collapse.comparison import Comparison

__all__ = ["COMPARABLE", "Run", "prepare"]

DEFAULT_DEPTH = shared.DEFAULT_DEPTH
#: Options that `--compare` may vary.
COMPARABLE = (
    *("mask", "window", "graph", "ln", "norm", "placement", "skip", "value", "scores", "beta"),
    *("position", "attention", "sink", "qk-norm", "gate", "preset"),
    *("weights", "d-qk", "heads", "mlp", "dropout", "attention-dropout"),
    *("tokens", "dim", "start", "seed", "x0"),
)
#: Runs of one comparison at most: each is a line in the figure and a row in the table.
MOST_RUNS = 1000
#: Options that do not change what is computed.
OUTPUT_OPTIONS = (*output.OPTIONS, "export", "threads", "device", "compare", "theory")


class Run:
    """One run: what its options stand for, and where it goes.

    x0 : the input; where a run goes on without --theory its last state, which has the same shape
    input : the description of the input
    """

    def __init__(self, options: argparse.Namespace, label: str = ""):
        self.label = label
        self.earlier = load(options.resume) if options.resume else None
        shared.apply_preset(options)
        self.options = options = _with_saved_options(options, self.earlier)
        if options.depth is not None and options.depth < 1:
            raise ValueError(f"--depth is a positive number of layers; got {options.depth}")
        if options.seed < 0:
            raise ValueError(f"--seed is not negative; got {options.seed}")
        chosen = "numba" if options.engine == "auto" else options.engine
        find_engine(chosen, options.device)  # refused now, if it is not there
        self.record = _record(options)
        if self.earlier is None:
            self._begin(options)
        else:
            self._go_on(options, self.earlier)
        self.depth = _depth(options, self.dynamics.n_layers)
        self.dynamics.check_tokens(self.x0)
        if options.theory:
            _check_theory(self.dynamics.n_tokens)
        self.record.check_memory(*self.shape[:2], self.depth)
        self._check_earlier()
        self._check_time()
        self.engine, self.floored = options.engine, None
        if options.engine == "auto":
            self.engine, self.floored = preferred(self.dynamics, self.x0.dtype)
        check_applies(self.engine, self.dynamics, self.x0.dtype)
        self.digest = self._digest()
        self.name = options.name or self._own_name()

    def _begin(self, options: argparse.Namespace) -> None:
        """From the options and the files that they name."""
        dropout = shared.make_dropout(options)
        graph = shared.read_graph(options)
        weights = shared.make_weights(options)
        self.x0 = shared.make_tokens(options, graph, weights)
        self.input = describe(self.x0)
        mask = graph or shared.make_mask(options, self.x0.shape[-2])
        layers = options.depth or weights.n_layers or DEFAULT_DEPTH
        self.dynamics = shared.make_dynamics(options, mask, weights, dropout, layers=layers)

    def _go_on(self, options: argparse.Namespace, earlier: Trajectory) -> None:
        """From the saved run alone, for other files may have moved; --theory needs its input."""
        try:
            self.dynamics = earlier.rebuild_dynamics()
        except ValueError as error:
            raise ValueError(f"{options.resume}: {error}") from None
        self.x0, self.input = earlier.final, earlier.provenance["input"]
        if options.theory:
            self.x0 = shared.make_tokens(options, self.dynamics.mask, self.dynamics.weights)
            if describe(self.x0) != self.input:
                raise ValueError(
                    f"--theory needs the input of {options.resume}, and "
                    f"{options.x0 or options.text or options.start} now gives another; restore it, "
                    f"or leave --theory out"
                )

    @cached_property
    def facts(self) -> MaskFacts:
        return facts(self.dynamics.mask)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Samples, tokens, dimension."""
        return self.x0.shape if self.x0.ndim == 3 else (1, *self.x0.shape)

    def _check_earlier(self) -> None:
        if self.earlier is None:
            return
        if self.earlier.depth >= self.depth:
            raise ValueError(
                f"{self.options.resume} already has depth {self.earlier.depth}; ask for a larger "
                f"--depth"
            )

    @property
    def expected_seconds(self) -> float:
        """By the model of costs, which is rough: of the layers of attention, on all threads."""
        samples, n, d = self.shape
        pairs = self.dynamics.layout.n_edges * self.dynamics.weights.n_heads
        layers = (self.depth - self.start) / thread_count(self.options.threads)
        return 1e-9 * samples * layers * layer_cost(n, d, pairs)

    def _check_time(self) -> None:
        years = self.expected_seconds / (365.25 * 86400)
        if years > 1:
            samples, n, _ = self.shape
            raise ValueError(
                f"{self.depth - self.start} layers of {samples} samples of {n} tokens would take "
                f"about {round(years):,} years here; use fewer layers, samples or tokens, or a "
                f"sparser mask"
            )

    def _digest(self) -> str:
        """Tells apart runs that compute different things."""
        everything = [describe(self.dynamics), self.input, self.depth]
        everything += [self.engine, repr(self.record)]
        return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:8]

    def _own_name(self) -> str:
        options = self.options
        mask = Path(options.graph).stem if options.graph else options.mask or "complete"
        norm = options.norm or ("ln" if options.ln == "on" else "no-ln")
        layers = [norm, options.weights or Path(options.value or "gaussian").stem]
        if (options.weights or "").startswith("minilm:all"):  # with norms of their own
            layers = [options.weights]
        return file_name(mask, *layers, f"T{self.depth}", self.digest)

    def simulate(self, progress: Callable[[int], None]) -> Trajectory:
        """The trajectory, with the options in its provenance, from depth 0 even if resumed."""
        start = self.start
        x0 = self.x0 if self.earlier is None else self.earlier.state

        def finished(trajectory: Trajectory) -> Trajectory:
            if self.earlier is not None:
                trajectory = joined(self.earlier, trajectory)
            saved = {k: v for k, v in vars(self.options).items() if k not in OUTPUT_OPTIONS}
            saved |= {"depth": self.depth, "resume": None}
            return trajectory.with_provenance(
                seed=self.options.seed, options=saved, input=self.input
            )

        try:
            trajectory = simulate(
                self.dynamics,
                x0,
                self.depth - start,
                record=self.record,
                engine=self.engine,
                threads=self.options.threads,
                device=self.options.device,
                start=start,
                progress=lambda layers: progress(start + layers),
            )
        except (Overflow, Stopped) as ended:
            ended.trajectory = finished(ended.trajectory)
            raise
        return finished(trajectory)

    @property
    def start(self) -> int:
        """The layer from which it goes on."""
        return 0 if self.earlier is None else self.earlier.depth

    def followed(self, depths: np.ndarray) -> np.ndarray:
        """The first sample once more, (F, N, d), at 0 and these other depths after `start`."""
        from dynsim.reports.runs import followed

        x0 = self.x0 if self.earlier is None else self.earlier.state
        options = {"engine": self.engine, "device": self.options.device, "start": self.start}
        return followed(self.dynamics, x0, depths, **options)

    def compare_with_theory(self, trajectory: Trajectory) -> Comparison | None:
        """Theory beside the trajectory, if asked for and if there is a layer."""
        if not self.options.theory or not trajectory.depth:
            return None
        from dynsim.collapse.comparison import compare_with_theory

        return compare_with_theory(self.dynamics, self.x0, trajectory)


def prepare(
    parse: Callable[[list[str]], argparse.Namespace], options: argparse.Namespace, words: list[str]
) -> list[Run]:
    """The run that `options` ask for, or all those that --compare asks for.

    parse, words : to parse them anew with other values. Raises ValueError for anything that can be
    found wrong before the work begins.
    """
    if options.threads is not None and options.threads < 1:
        raise ValueError(f"--threads is at least 1; got {options.threads}")
    if options.resume:
        _check_resumed(parse, options)
    if not options.compare:
        return [Run(options)]
    if options.resume:
        raise ValueError("--compare and --resume do not go together; resume one run at a time")
    varied = _varied(options.compare)
    for key in varied:
        words = _without(words, f"--{key}")
    runs = []
    for chosen in product(*varied.values()):
        setting = dict(zip(varied, chosen, strict=True))
        own = parse([*words, *(f"--{key}={value}" for key, value in setting.items())])
        own.name = own.name and file_name(own.name, *(w for pair in setting.items() for w in pair))
        runs.append(Run(own, ", ".join(f"{key} {value}" for key, value in setting.items())))
    together = sum(run.shape[0] for run in runs)
    runs[0].record.check_memory(
        together, max(run.shape[1] for run in runs), max(run.depth for run in runs)
    )
    known: dict[str, Run] = {}
    for run in runs:
        other = known.setdefault(run.digest, run)
        if other is not run:
            raise ValueError(
                f"{other.label!r} and {run.label!r} are one and the same run: what they differ in "
                f"changes nothing beside the other options; compare something else"
            )
    return runs


def _varied(texts: list[str]) -> dict[str, list[str]]:
    """The values of each option that --compare varies; several make a grid."""
    varied = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        key = key.strip().removeprefix("--")
        if not equals or key not in COMPARABLE:
            wanted = f"--compare wants OPTION=A,B,...; got {text!r}"
            raise ValueError(f"{wanted}: {unknown('option', key, COMPARABLE)}")
        if key in varied:
            raise ValueError(f"--compare {key}= is given twice; write all values in one list")
        varied[key] = values(listed)
        if not varied[key]:
            raise ValueError(f"--compare {key}= needs at least one value")
    number = prod(map(len, varied.values()))
    if number > MOST_RUNS:
        raise ValueError(f"--compare makes {number} runs, more than {MOST_RUNS}; vary less")
    return varied


def _check_resumed(
    parse: Callable[[list[str]], argparse.Namespace], options: argparse.Namespace
) -> None:
    """A resumed run keeps its options: refuse those that would be ignored."""
    ignored = {"depth", "resume", *OUTPUT_OPTIONS}
    for key, default in vars(parse([])).items():
        if key not in ignored and getattr(options, key) != default:
            raise ValueError(
                f"--resume keeps the options of the saved run; leave --{key.replace('_', '-')} out"
            )


def _without(argv: list[str], flag: str) -> list[str]:
    """The arguments less `flag` and its value; --ln and --norm are two words for one thing."""
    rivals = {"--ln", "--norm"} if flag in ("--ln", "--norm") else {flag}
    words, skip = [], False
    for word in argv:
        is_value, skip = skip and not word.startswith("--"), False  # --qk-norm may stand alone
        if is_value:
            continue
        if word in rivals:
            skip = True
        elif word.split("=")[0] not in rivals:
            words.append(word)
    return words


def _check_theory(n_tokens: int) -> None:
    from dynsim.collapse.comparison import MOST_TOKENS

    if not 2 <= n_tokens <= MOST_TOKENS:
        raise ValueError(
            f"--theory is for 2 to {MOST_TOKENS} tokens, for its bounds need dense attention; "
            f"got {n_tokens}; change --tokens, or leave it out"
        )


def _depth(options: argparse.Namespace, available: int | None) -> int:
    """--depth, by default as many layers as there are weights for, or 128."""
    if options.depth is None:
        return DEFAULT_DEPTH if available is None else available
    if available is not None and options.depth > available:
        raise ValueError(
            f"there are weights for {available} layers; got --depth {options.depth}; leave it out"
        )
    return options.depth


def _record(options: argparse.Namespace) -> Record:
    names = None
    if options.measures is not None:
        words = [word.strip() for word in options.measures.split(",") if word.strip()]
        names = tuple(MEASURES) if words == ["all"] else tuple(words)
    try:
        stride = "auto" if options.stride == "auto" else int(options.stride)
    except ValueError:
        raise ValueError(f"--stride is 'auto' or a number; got {options.stride!r}") from None
    return Record(measures=names, stride=stride, states=options.states)


def _with_saved_options(
    options: argparse.Namespace, earlier: Trajectory | None
) -> argparse.Namespace:
    """The options of the saved run, with the depth and the output of this one."""
    if earlier is None:
        return options
    if not {"options", "input"} <= earlier.provenance.keys():
        raise ValueError(
            f"{options.resume} was not made by this command, so its options are not known; go on "
            f"with t = dynsim.load(...) and dynsim.simulate(t.rebuild_dynamics(), t.state, ..., "
            f"start=t.depth)"
        )
    saved = earlier.provenance["options"]
    depth = saved["depth"] if options.depth is None else options.depth
    return argparse.Namespace(**vars(options) | saved | {"depth": depth, "resume": options.resume})
