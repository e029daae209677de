"""Trajectory: what a simulation recorded, with its provenance; saved, loaded, exported.

The depth axis runs 0..T; depth 0 is the input exactly as given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dynsim._files import as_path, written_whole
from dynsim._values import check_instance
from dynsim.measures import EVERY_LAYER, MEASURES, floor
from dynsim.measures.rounding import ROUNDING, Sizes
from dynsim.network.deviation import Deviation
from dynsim.network.dynamics import AttentionDynamics
from dynsim.results import netcdf
from dynsim.results.definition import MOST_BYTES, Definition

if TYPE_CHECKING:
    import xarray

__all__ = ["Trajectory", "joined", "load"]

#: Fields of a deviation in files.
_DEVIATION = {
    "center": ("sample", "dim"),
    "shape": ("sample", "token", "dim"),
    "log_size": ("sample",),
    "observed": ("sample", "observation"),  # of which every run has its own number
}


def _attributes(name: str) -> dict[str, str]:
    """What a file says of a measure."""
    words = {"long_name": MEASURES[name].label} if name in MEASURES else {}
    if name in ROUNDING:
        rounding = ROUNDING[name]
        words["comment"] = (
            f"rounding may move it by {rounding.formula}; where it is no further than that from "
            f"{rounding.collapsed:g}, its value at collapse, its digits mean nothing"
        )
    return words


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The result of `dynsim.simulate`.

    Attributes
    ----------
    measures : dict of str to array (samples, T+1)
        NaN at depths where a measure on a stride was not recorded; see `recorded`.
    final : array (samples, N, d)
        Tokens at depth T.
    deviation : Deviation or None
        Depth T as mean, shape and log mu, if the engine followed mu below the floor.
    states : array (samples, K, N, d) and state_depths : array (K,)
        Recorded tokens; K = 0 unless states were asked for.
    dynamics : dict
        Description of the dynamics; arrays appear as shape and SHA-256.
    provenance : dict
        Engine, seed, versions, time and runtime. Not compared by ``==``.
    definition : Definition or None
        All that the dynamics consists of, given matrices and edges included; for
        `rebuild_dynamics`.
    """

    measures: Mapping[str, np.ndarray]
    final: np.ndarray
    states: np.ndarray
    state_depths: np.ndarray
    dynamics: Mapping
    provenance: Mapping = field(default_factory=dict)
    deviation: Deviation | None = None
    definition: Definition | None = None

    def rebuild_dynamics(self) -> AttentionDynamics:
        """The dynamics that was simulated, also after `load`: nothing else is needed to go on.

        Raises ValueError when the file does not hold it: where the dynamics has parts of classes of
        your own, or arrays of more than 1 GiB together, they are not kept.

        Examples
        --------
        >>> import dynsim
        >>> dynamics = dynsim.AttentionDynamics(dynsim.masks.ring(5), dynsim.weights.Orthogonal())
        >>> first = dynsim.simulate(dynamics, dynsim.tokens.sphere(1, 5, 3), depth=2)
        >>> second = dynsim.simulate(first.rebuild_dynamics(), first.state, depth=3, start=2)
        >>> joined(first, second).depth
        5
        """
        if self.definition is None:
            raise ValueError(
                f"this trajectory does not hold its dynamics (parts of classes of your own and "
                f"arrays of more than {MOST_BYTES / 2**30:g} GiB are not kept); make the dynamics "
                f"as before and go on with simulate(dynamics, trajectory.state, ...)"
            )
        dynamics = self.definition.dynamics()
        if json.loads(json.dumps(dynamics.description)) != json.loads(json.dumps(self.dynamics)):
            raise ValueError("the dynamics kept in this trajectory is not the one that was run")
        return dynamics

    @property
    def state(self) -> np.ndarray | Deviation:
        """Depth T in the form from which a simulation goes on with the same bits."""
        return self.final if self.deviation is None else self.deviation

    @property
    def depth(self) -> int:
        """T, the number of layers that were applied."""
        return next(iter(self.measures.values())).shape[1] - 1

    @property
    def n_samples(self) -> int:
        return len(self.final)

    @property
    def depths(self) -> np.ndarray:
        """0, 1, ..., T."""
        return np.arange(self.depth + 1)

    @property
    def follows_mu(self) -> bool:
        """True when mu has no floor here: the engine carried its logarithm."""
        return self.deviation is not None

    @property
    def floor(self) -> np.ndarray:
        """The distance below which tokens are rounding, (samples, T+1); `dynsim.measures.floor`.

        It holds for mu unless `follows_mu`.
        """
        return floor(self["frobenius_norm"], self.final.dtype)

    def rounding(self, name: str) -> np.ndarray | None:
        """How far rounding may have moved a measure, (samples, T+1): `dynsim.rounding`.

        NaN where it was not recorded; None for a measure without such a bound.
        """
        if name not in ROUNDING:
            return None
        sizes = Sizes.of(
            self.dynamics["mask"]["tokens"],
            self.final.shape[-1],
            self.final.dtype,
            self["frobenius_norm"],
            self["norm_min"],
            self["mu"],
            self["log10_mu_error"] if self.follows_mu else None,
        )
        values = self[name]
        bound = ROUNDING[name].bound(values, sizes)
        return np.where(np.isnan(values), np.nan, bound)

    def within_rounding(self, name: str) -> np.ndarray:
        """Where rounding alone may have made a measure differ from its value at collapse.

        Boolean, (samples, T+1); False where it was not recorded and for one without a bound.
        """
        bounds = self.rounding(name)
        if bounds is None:
            return np.zeros(self[name].shape, bool)
        return ROUNDING[name].within(self[name], bounds)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.measures:
            raise KeyError(f"{name!r} was not recorded; recorded are {', '.join(self.measures)}")
        return self.measures[name]

    def recorded(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Depths (K,) at which a measure was recorded, and its values (samples, K).

        Raises KeyError where it was not recorded at all.
        """
        values = self[name]
        there = ~np.isnan(values).all(axis=0)
        return np.flatnonzero(there), values[:, there]

    def __eq__(self, other: object) -> bool:
        """Same measures, tokens and dynamics, bit for bit; runtime and versions do not count.

        Measures on a stride are compared at the depths where both were recorded: the stride "auto"
        of a run in parts is not that of the whole.
        """
        if not isinstance(other, Trajectory):
            return NotImplemented
        return (
            list(self.measures) == list(other.measures)
            and all(self._agrees(other, name) for name in self.measures)
            and all(
                np.array_equal(getattr(self, name), getattr(other, name))
                for name in ("final", "states", "state_depths")
            )
            and self.deviation == other.deviation
            and self.dynamics == other.dynamics
        )

    def _agrees(self, other: Trajectory, name: str) -> bool:
        ours, theirs = self[name], other[name]
        if name not in EVERY_LAYER and ours.shape == theirs.shape:
            both = ~(np.isnan(ours).all(axis=0) | np.isnan(theirs).all(axis=0))
            ours, theirs = ours[:, both], theirs[:, both]
        return np.array_equal(ours, theirs, equal_nan=True)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        samples, n, d = self.final.shape
        return (
            f"Trajectory(depth={self.depth}, samples={samples}, tokens={n}, dim={d}, "
            f"measures=[{', '.join(self.measures)}])"
        )

    def with_provenance(self, **entries: object) -> Trajectory:
        """The same trajectory with these entries added to its provenance."""
        return replace(self, provenance={**self.provenance, **entries})

    def without_tokens(self) -> Trajectory:
        """The same measures without final tokens and states: little to send or to keep."""
        return replace(
            self,
            deviation=self.deviation and self.deviation.without_tokens(),
            final=self.final[:, :0],
            states=self.states[:, :0],
            state_depths=self.state_depths[:0],
        )

    # --- files ----------------------------------------------------------------------------------

    def _labelled(self) -> netcdf.Labelled:
        """All of it as arrays with named dimensions; what is not an array as JSON."""
        arrays: dict[str, tuple] = {
            name: (
                ("sample", "depth"),
                values,
                _attributes(name),
            )
            for name, values in self.measures.items()
        }
        arrays["final_state"] = (("sample", "token", "dim"), self.final, {})
        if self.deviation is not None:
            arrays |= _arrays_of(self.deviation, "final_")
        arrays["state"] = (("sample", "state_depth", "token", "dim"), self.states, {})
        arrays["depth"] = (("depth",), self.depths, {})
        arrays["state_depth"] = (("state_depth",), self.state_depths, {})
        if self.definition is not None:
            for k, array in enumerate(self.definition.arrays):
                axes = tuple(f"definition_{k}_axis{i}" for i in range(array.ndim))
                arrays[f"definition_{k}"] = (axes, array, {})
        attributes = {
            "title": "dynsim trajectory",
            "measures": json.dumps(list(self.measures)),
            "dynamics": json.dumps(self.dynamics),
            "provenance": json.dumps(self.provenance),
            "definition": json.dumps(self.definition and self.definition.recipe),
        }
        return netcdf.Labelled(arrays, attributes)

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, np.ndarray], attributes: Mapping) -> Trajectory:
        """The inverse of `_labelled`."""
        return cls(
            measures={name: arrays[name] for name in json.loads(attributes["measures"])},
            final=arrays["final_state"],
            states=arrays["state"],
            state_depths=arrays["state_depth"],
            dynamics=json.loads(attributes["dynamics"]),
            provenance=json.loads(attributes["provenance"]),
            deviation=_deviation_in(arrays, "final_"),
            definition=_definition_in(arrays, json.loads(attributes["definition"])),
        )

    def to_xarray(self) -> xarray.Dataset:
        """An xarray.Dataset with dimensions sample, depth (and state_depth, token, dim).

        Dynamics, provenance and definition are its attributes, as JSON.
        """
        import xarray as xr

        arrays, attributes = self._labelled()
        return xr.Dataset(arrays, attrs=attributes)

    @classmethod
    def from_xarray(cls, dataset: xarray.Dataset) -> Trajectory:
        """The inverse of `to_xarray`."""
        arrays = {str(name): variable.values for name, variable in dataset.variables.items()}
        return cls._from_arrays(arrays, dataset.attrs)

    def save(self, path: str | Path) -> Path:
        """Write NetCDF (``.nc``) or Zarr (``.zarr``); whole or not at all, and no pickle.

        Bytes per sample: 8 for each measure and depth; 8 N d for the final tokens and as much for
        each recorded state (half of it in float32), and for each run that the engine "logscale"
        follows, one or two. Once: 8 d^2 for a given matrix, 16 N or 4 per edge and 8 N for the
        edges of a mask; 4.7 MB for a layer of MiniLM, 28 MB for all six.

        Raises ValueError for another suffix, OSError where the system does not let it write.
        """
        path = as_path(path)
        if path.suffix not in (".nc", ".zarr"):
            raise ValueError(f"a trajectory is saved as .nc or .zarr; got {path.name!r}")
        with written_whole(path) as temporary:
            if path.suffix == ".nc":
                netcdf.write(temporary, self._labelled())
            else:
                _require_zarr()
                self.to_xarray().to_zarr(temporary, mode="w", consolidated=False)
        return path

    def to_csv(self, path: str | Path) -> Path:
        """One row per sample and depth, one column per measure; empty where not recorded.

        The last column, within_rounding, names the measures of the row that lie within rounding.
        Raises as `save`, for any suffix.
        """
        import csv

        path = as_path(path)
        with written_whole(path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["sample", "depth", *self.measures, "within_rounding"])
            flags = {name: self.within_rounding(name) for name in self.measures}
            for sample in range(self.n_samples):
                for depth in self.depths:
                    row = [values[sample, depth] for values in self.measures.values()]
                    cells = ["" if np.isnan(v) else repr(float(v)) for v in row]
                    flagged = [name for name, there in flags.items() if there[sample, depth]]
                    writer.writerow([sample, depth, *cells, " ".join(flagged)])
        return Path(path)

    def to_json(self, path: str | Path) -> Path:
        """Measures (samples x depths, null where missing or infinite), whether they lie within
        rounding, dynamics and provenance. Raises as `save`, for any suffix."""
        path = as_path(path)
        data = {
            "dynamics": self.dynamics,
            "provenance": self.provenance,
            "depth": self.depths.tolist(),
            "measures": {
                name: [[v if np.isfinite(v) else None for v in row] for row in values.tolist()]
                for name, values in self.measures.items()
            },
            "within_rounding": {
                name: self.within_rounding(name).tolist()
                for name in self.measures
                if name in ROUNDING
            },
        }
        with written_whole(path) as temporary:
            Path(temporary).write_text(json.dumps(data))
        return Path(path)


def _arrays_of(state: Deviation, prefix: str) -> dict:
    """A deviation as arrays with named dimensions; its perturbed runs with a prefix more."""
    arrays: dict[str, tuple] = {
        f"{prefix}{name}": (dimensions, getattr(state, name), {})
        for name, dimensions in _DEVIATION.items()
    }
    arrays[f"{prefix}observed"] = (("sample", f"{prefix}observation"), state.observed, {})
    for k, run in enumerate(state.perturbed):
        arrays |= _arrays_of(run, f"{prefix}perturbed{k}_")
    return arrays


def _deviation_in(arrays: Mapping[str, np.ndarray], prefix: str) -> Deviation | None:
    """The inverse of `_arrays_of`; None where there is no deviation of this prefix."""
    if f"{prefix}shape" not in arrays:
        return None
    fields = {name: arrays[f"{prefix}{name}"] for name in _DEVIATION}
    numbers = count()
    runs = iter(lambda: _deviation_in(arrays, f"{prefix}perturbed{next(numbers)}_"), None)
    return Deviation(**fields, perturbed=tuple(runs))


def _definition_in(arrays: Mapping[str, np.ndarray], recipe: Mapping | None) -> Definition | None:
    if recipe is None:
        return None
    names = takewhile(lambda name: name in arrays, (f"definition_{k}" for k in count()))
    return Definition(recipe, tuple(arrays[name] for name in names))


def joined(first: Trajectory, second: Trajectory) -> Trajectory:
    """Two trajectories as one: `second` went on from ``first.state`` with ``start=first.depth``.

    Parameters
    ----------
    first, second : Trajectory
        Of depths T and U.

    Returns
    -------
    Trajectory
        Of depth T + U, with the measures that both recorded, tokens and provenance of `second`,
        and in it the "start" of `first`.

    Raises
    ------
    ValueError
        Where the dynamics or the numbers of the samples differ, or `second` does not begin where
        `first` ends: at the same layer, and with mu and ||X||_F of the same size.

    Examples
    --------
    >>> import dynsim
    >>> pure = dynsim.AttentionDynamics(dynsim.masks.causal(4), dynsim.weights.Orthogonal())
    >>> x0 = dynsim.tokens.gaussian(samples=1, n=4, d=3)
    >>> first = dynsim.simulate(pure, x0, depth=2)
    >>> second = dynsim.simulate(pure, first.state, depth=3, start=2)
    >>> joined(first, second) == dynsim.simulate(pure, x0, depth=5)
    True
    """
    for run in (first, second):
        check_instance("a trajectory", run, Trajectory, "dynsim.simulate(...)")
    if first.dynamics != second.dynamics:
        raise ValueError("the trajectories are of different dynamics and cannot be joined")
    numbers = [run.provenance.get("first_sample", 0) for run in (first, second)]
    if numbers[0] != numbers[1]:
        raise ValueError(
            f"the trajectories are of other samples, from number {numbers[0]} and {numbers[1]}; go "
            f"on with first_sample={numbers[0]}"
        )
    begins, ends = _first_layer(second), _first_layer(first) + first.depth
    if begins != ends:
        raise ValueError(
            f"the second trajectory begins at layer {begins} and the first ends at layer {ends}; "
            f"go on with start={ends}"
        )
    if not _meet(first, second):
        raise ValueError(
            "the second trajectory does not begin with the tokens with which the first ends; go on "
            "from its `state`"
        )
    new_states = second.state_depths > 0
    return replace(
        second,
        provenance={**second.provenance, "start": _first_layer(first)},
        measures={
            name: np.concatenate([first[name], second[name][:, 1:]], axis=1)
            for name in first.measures
            if name in second.measures
        },
        states=np.concatenate([first.states, second.states[:, new_states]], axis=1),
        state_depths=np.concatenate(
            [first.state_depths, first.depth + second.state_depths[new_states]]
        ),
    )


def _first_layer(run: Trajectory) -> int:
    return int(run.provenance.get("start", 0))


def _meet(first: Trajectory, second: Trajectory) -> bool:
    """Whether ||X||_F and mu at the end of one are those at the start of the other, but for what
    rounding does to their sums."""
    if len(first.final) != len(second.final):
        return False
    before, after = (np.stack([run["frobenius_norm"], run["mu"]]) for run in (first, second))
    before, after = before[..., -1], after[..., 0]
    allowed = np.finfo(first.final.dtype).eps ** 0.5 * np.abs(before[0])
    return bool(np.all((np.abs(after - before) <= allowed) | (after == before)))


def load(path: str | Path) -> Trajectory:
    """Read a trajectory that `Trajectory.save` wrote, NetCDF (``.nc``) or Zarr (``.zarr``).

    Parameters
    ----------
    path : str or pathlib.Path

    Returns
    -------
    Trajectory
        Equal to the one that was saved, bit for bit.

    Raises
    ------
    ValueError
        Where there is no such file, or it is no trajectory.
    ImportError
        For ``.zarr`` without the packages zarr and xarray.

    Examples
    --------
    >>> import tempfile, dynsim
    >>> pure = dynsim.AttentionDynamics(dynsim.masks.causal(4), dynsim.weights.Identity())
    >>> run = dynsim.simulate(pure, dynsim.tokens.gaussian(samples=1, n=4, d=3), depth=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load(run.save(f"{folder}/run.nc")) == run
    True
    """
    path = as_path(path)
    if not path.exists():
        raise ValueError(f"no trajectory at {path}; check the path given")
    try:
        if path.suffix == ".zarr":
            return _load_zarr(path)
        arrays, attributes = netcdf.read(path)
        values = {name: array for name, (_, array, _) in arrays.items()}
        return Trajectory._from_arrays(values, attributes)
    except ImportError:
        raise
    except Exception as error:  # the readers behind this raise types of their own
        raise ValueError(f"{path}: not a dynsim trajectory ({error})") from None


def _load_zarr(path: Path) -> Trajectory:
    _require_zarr()
    import xarray as xr

    with xr.open_zarr(path, consolidated=False) as dataset:
        return Trajectory.from_xarray(dataset.load())


def _require_zarr() -> None:
    try:
        import zarr  # noqa: F401
    except ImportError:
        raise ImportError(
            "Zarr files need the zarr package; pip install 'dynsim[scale]', or use .nc"
        ) from None
