"""One run or several to compare: every check that can be made without work, then the work."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path

from dynsim._values import describe
from dynsim.cli import options as shared
from dynsim.collapse.comparison import MOST_TOKENS, compare_with_theory
from dynsim.engines import find_engine, preferred
from dynsim.measures import MEASURES
from dynsim.results.trajectory import joined, load
from dynsim.simulation import Overflow, Record, Stopped, simulate

__all__ = ["Job", "file_name", "prepare"]

DEFAULT_DEPTH = 128
#: Options that `--compare` may vary.
COMPARABLE = (
    *("mask", "window", "graph", "ln", "norm", "placement", "skip", "value", "scores", "weights"),
    *(
        "d-qk",
        "heads",
        "mlp",
        "dropout",
        "attention-dropout",
        "tokens",
        "dim",
        "start",
        "seed",
        "x0",
    ),
)
#: Options that do not change what is computed.
OUTPUT_OPTIONS = (
    *("out", "name", "format", "no_figure", "export", "json"),
    *("threads", "device", "compare", "theory"),
)


class Job:
    """One run: what its options stand for, and where it goes."""

    def __init__(self, options: argparse.Namespace, label: str = ""):
        self.label = label
        self.earlier = load(options.resume) if options.resume else None
        self.options = options = _with_saved_options(options, self.earlier)
        self.depth = DEFAULT_DEPTH if options.depth is None else options.depth
        if self.depth < 1:
            raise ValueError(f"--depth is a positive number of layers; got {self.depth}")
        if options.seed < 0:
            raise ValueError(f"--seed is not negative; got {options.seed}")
        chosen = "numba" if options.engine == "auto" else options.engine
        find_engine(chosen, options.device)  # refused now, if it is not there
        self.record = _record(options)
        dropout = shared.make_dropout(options)
        graph = shared.read_graph(options)
        weights = shared.make_weights(options)
        self.x0 = shared.make_tokens(options, graph, weights)
        mask = graph or shared.make_mask(options, self.x0.shape[-2])
        self.dynamics = shared.make_dynamics(options, mask, weights, dropout)
        self.dynamics.check_tokens(self.x0)
        if options.theory and not 2 <= self.dynamics.n_tokens <= MOST_TOKENS:
            raise ValueError(
                f"--theory is for 2 to {MOST_TOKENS} tokens, for its bounds need dense attention; "
                f"got {self.dynamics.n_tokens}; change --tokens, or leave it out"
            )
        samples = self.x0.shape[0] if self.x0.ndim == 3 else 1
        self.record.check_memory(samples, self.x0.shape[-2], self.depth)
        self._check_earlier()
        self.engine, self.floored = options.engine, None
        if options.engine == "auto":
            self.engine, self.floored = preferred(self.dynamics, self.x0.dtype)
        self.digest = self._digest()
        self.name = options.name or self._own_name()

    def _check_earlier(self) -> None:
        if self.earlier is None:
            return
        if self.earlier.depth >= self.depth:
            raise ValueError(
                f"{self.options.resume} already has depth {self.earlier.depth}; ask for a larger "
                f"--depth"
            )
        if self.earlier.dynamics != json.loads(json.dumps(self.dynamics.description)):
            raise ValueError(
                f"{self.options.resume} was made with other files than its options name now; "
                f"restore them, or start a new run"
            )

    def _digest(self) -> str:
        """Tells apart runs that compute different things."""
        everything = [describe(self.dynamics), describe(self.x0), self.depth]
        everything += [self.engine, repr(self.record)]
        return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:8]

    def _own_name(self) -> str:
        options = self.options
        mask = Path(options.graph).stem if options.graph else options.mask or "complete"
        norm = options.norm or ("ln" if options.ln == "on" else "no-ln")
        weights = options.weights or Path(options.value or "gaussian").stem
        return file_name(mask, norm, weights, f"T{self.depth}", self.digest)

    def simulate(self, progress):
        """The trajectory, with the options in its provenance, from depth 0 even if resumed."""
        start = 0 if self.earlier is None else self.earlier.depth
        x0 = self.x0 if self.earlier is None else self.earlier.state

        def finished(trajectory):
            if self.earlier is not None:
                trajectory = joined(self.earlier, trajectory)
            kept = {k: v for k, v in vars(self.options).items() if k not in OUTPUT_OPTIONS}
            kept |= {"depth": self.depth, "resume": None}
            return trajectory.with_provenance(seed=self.options.seed, options=kept)

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

    def compare_with_theory(self, trajectory):
        """Theory beside the trajectory, if asked for and if there is a layer."""
        if not self.options.theory or not trajectory.depth:
            return None
        return compare_with_theory(self.dynamics, self.x0, trajectory)


def prepare(command: argparse.ArgumentParser, options, argv: list[str]) -> list[Job]:
    """The run that `options` ask for, or all those that --compare asks for.

    Raises ValueError for anything that can be found wrong before the work begins.
    """
    if options.threads is not None and options.threads < 1:
        raise ValueError(f"--threads is at least 1; got {options.threads}")
    if options.resume:
        _check_resumed(command, options)
    if not options.compare:
        return [Job(options)]
    if sum(word.split("=")[0] == "--compare" for word in argv) > 1:
        raise ValueError("--compare varies one option at a time; give it once")
    if options.resume:
        raise ValueError("--compare and --resume do not go together; resume one run at a time")
    key, equals, values = options.compare.partition("=")
    key = key.strip().removeprefix("--")
    if not equals or key not in COMPARABLE:
        raise ValueError(
            f"--compare wants OPTION=A,B,... with one of {', '.join(COMPARABLE)}; "
            f"got {options.compare!r}"
        )
    jobs = []
    separator = ";" if ";" in values else ","
    for value in dict.fromkeys(word.strip() for word in values.split(separator) if word.strip()):
        varied = command.parse_args([*_without(argv, f"--{key}"), f"--{key}={value}"])
        varied.name = varied.name and file_name(varied.name, key, value)
        jobs.append(Job(varied, label=f"{key} {value}"))
    if not jobs:
        raise ValueError(f"--compare {key}= needs at least one value")
    for k, job in enumerate(jobs):
        for other in jobs[:k]:
            if other.digest == job.digest:
                raise ValueError(
                    f"{other.label!r} and {job.label!r} are one and the same run: --{key} changes "
                    f"nothing beside the other options; compare something else"
                )
    return jobs


def file_name(*words: str) -> str:
    """The words joined, each cut to 60 characters, fit for a file name."""
    return re.sub(r"[^A-Za-z0-9.=+_-]+", "-", "_".join(word[:60] for word in words))


def _check_resumed(command: argparse.ArgumentParser, options) -> None:
    """A resumed run keeps its options: refuse those that would be ignored."""
    kept = {"depth", "resume", *OUTPUT_OPTIONS}
    for key, default in vars(command.parse_args([])).items():
        if key not in kept and getattr(options, key) != default:
            raise ValueError(
                f"--resume keeps the options of the saved run; leave --{key.replace('_', '-')} out"
            )


def _without(argv: list[str], flag: str) -> list[str]:
    """The arguments less `flag` and its value; --ln and --norm are two words for one thing."""
    rivals = {"--ln", "--norm"} if flag in ("--ln", "--norm") else {flag}
    kept, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word in rivals:
            skip = True
        elif word.split("=")[0] not in rivals:
            kept.append(word)
    return kept


def _record(options) -> Record:
    names = None
    if options.measures is not None:
        words = [word.strip() for word in options.measures.split(",") if word.strip()]
        names = tuple(MEASURES) if words == ["all"] else tuple(words)
    try:
        stride = "auto" if options.stride == "auto" else int(options.stride)
    except ValueError:
        raise ValueError(f"--stride is 'auto' or a number; got {options.stride!r}") from None
    return Record(measures=names, stride=stride, states=options.states)


def _with_saved_options(options, earlier):
    """The options of the saved run, with the depth and the output of this one."""
    if earlier is None:
        return options
    saved = earlier.provenance.get("options")
    if saved is None:
        raise ValueError(
            f"{options.resume} was not made by this command, so its options are not known; use "
            f"dynsim.simulate(dynamics, trajectory.state, ..., start=trajectory.depth)"
        )
    depth = saved["depth"] if options.depth is None else options.depth
    return argparse.Namespace(**vars(options) | saved | {"depth": depth, "resume": options.resume})
