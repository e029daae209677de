"""What was measured of a model by point, layer and sample: table, dataset, figure, file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dynsim._files import as_path, written_whole
from dynsim._values import shown
from dynsim.models.diagnosis import Diagnosis, diagnose
from dynsim.models.states import STATE
from dynsim.results import netcdf

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

__all__ = ["Profile", "Rows", "joined", "load_profile"]

_FORMAT = "dynsim profile 1"


@dataclass
class Rows:
    """Measures as they come: a row is a mapping from the name of a measure to its value.

    states : by (stack, point, layer, sample)
    heads : by (stack, layer, sample), values (heads,)
    norms : by (name of the norm, sample)
    """

    states: dict[tuple[str, str, int, int], dict[str, float]] = field(default_factory=dict)
    heads: dict[tuple[str, int, int], dict[str, np.ndarray]] = field(default_factory=dict)
    norms: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """Measures of hidden states by layer and sample.

    Attributes
    ----------
    states : mapping (stack, point) -> mapping measure -> array (layers, samples)
    heads : mapping stack -> mapping statistic -> array (layers, samples, heads)
    norms : mapping name of a norm -> mapping measure -> array (samples,)
    facts : JSON-ready: the model's name, type, mode, change, and which tensor each point is
    """

    states: Mapping[tuple[str, str], Mapping[str, np.ndarray]]
    heads: Mapping[str, Mapping[str, np.ndarray]]
    norms: Mapping[str, Mapping[str, np.ndarray]]
    facts: Mapping[str, Any]

    @classmethod
    def of_rows(cls, rows: Rows, facts: Mapping[str, Any]) -> Profile:
        """The profile of what came."""
        states: dict = {}
        for (stack, point, *place), row in rows.states.items():
            states.setdefault((stack, point), {})[tuple(place)] = row
        heads: dict = {}
        for (stack, *place), statistics in rows.heads.items():
            heads.setdefault(stack, {})[tuple(place)] = statistics
        norms: dict = {}
        for (name, sample), measures in rows.norms.items():
            norms.setdefault(name, {})[(sample,)] = measures
        return cls(
            {key: _table(table) for key, table in states.items()},
            {stack: _table(table) for stack, table in heads.items()},
            {name: _table(table) for name, table in norms.items()},
            dict(facts),
        )

    @property
    def stacks(self) -> list[str]:
        """Names of the model's stacks of blocks, in the order in which they were run."""
        return list(dict.fromkeys(stack for stack, _ in self.states))

    @property
    def samples(self) -> int:
        """How many texts, or images, were measured."""
        return max(table["tokens"].shape[1] for table in self.states.values())

    def residual(self, name: str, stack: str | None = None) -> np.ndarray:
        """A measure of the embeddings, if they were measured, and of the residual stream after
        every block, (layers, samples). The stack is the last one unless given.

        Raises KeyError for an unknown measure, ValueError where the residual was not measured.
        """
        stack = self.stacks[-1] if stack is None else stack
        points = [(stack, point) for point in ("embeddings", "layers_output")]
        parts = [self.states[key][name] for key in points if key in self.states]
        if not parts:
            raise ValueError(
                "the residual stream was not measured; measure at the points embeddings and "
                "layers_output"
            )
        return np.concatenate(parts)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """One sentence on the last stack of the model, and the numbers that it rests on."""
        names = ("relative_mu", "relative_mu_without_sinks", "stable_rank",
                 "stable_rank_without_sinks", "sinks", "floor")  # fmt: skip
        return diagnose({name: self.residual(name) for name in names})

    # --- for people -----------------------------------------------------------------------------

    def __str__(self) -> str:
        lines = [self._heading()]
        for stack in self.stacks:
            lines += ["", *([stack] if len(self.stacks) > 1 else []), *self._table_of(stack)]
        if any("layers_output" in key for key in self.states):
            lines += ["", f"diagnosis  {self.diagnosis.sentence}"]
        return "\n".join(lines)

    __repr__ = __str__

    def _heading(self) -> str:
        samples = self.samples
        parts = [str(self.facts["model"]), str(self.facts.get("dtype", ""))]
        parts += [f"{self.facts['mode']} mode"] if self.facts.get("mode") == "train" else []
        parts += [f"changed: {self.facts['change']}"] if self.facts.get("change") else []
        what = f"medians over {samples} samples" if samples > 1 else "one sample"
        return f"{', '.join(filter(None, parts))}; {what}"

    def _table_of(self, stack: str) -> list[str]:
        rows = [_HEADER]
        for (owner, point), table in self.states.items():
            if owner == stack:
                medians = {name: np.nanmedian(table[name], axis=1) for name in _COLUMNS}
                for k in range(len(table["tokens"])):
                    numbers = (
                        f"{medians[name][k]:>{width}.{digits}g}"
                        for name, (_, width, digits) in _COLUMNS.items()
                    )
                    rows.append(f"{_label(point, k, len(table['tokens'])):<22}" + "".join(numbers))
        return rows

    def plot(self, beside: Mapping[str, Profile] | None = None) -> Figure:
        """A figure: distances, ranks, norms and heads by layer, with profiles beside it by name."""
        from dynsim.models.plots import profiles

        name = str(self.facts["model"])
        return profiles({name: self, **(beside or {})}, f"{name}: {self.diagnosis.sentence}")

    # --- for programs ---------------------------------------------------------------------------

    @property
    def dataset(self) -> xarray.Dataset:
        """As an xarray.Dataset: a variable a measure.

        Of states the dimensions are point, layer and sample, of heads layer, sample and head, of
        norms norm and sample; all but the last have stack before them in a model of several
        stacks. NaN stands where a point has no such layer.
        """
        import xarray

        stacks = self.stacks
        points = list(dict.fromkeys(point for _, point in self.states))
        variables = _stacked(
            {(stacks.index(s), points.index(p)): t for (s, p), t in self.states.items()},
            ("stack", "point", "layer", "sample"),
        )
        variables |= _stacked(
            {(stacks.index(s),): t for s, t in self.heads.items()},
            ("stack", "layer", "sample", "head"),
        )
        norms = list(self.norms)
        variables |= _stacked(
            {(k,): self.norms[name] for k, name in enumerate(norms)}, ("norm", "sample")
        )
        coordinates = {"stack": stacks, "point": points, **({"norm": norms} if norms else {})}
        dataset = xarray.Dataset(variables, coordinates, {"facts": json.dumps(self.facts)})
        for name in variables:
            dataset[name].attrs["long_name"] = STATE.get(name, name)
        return dataset.isel(stack=0, drop=True) if len(stacks) == 1 else dataset

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: medians over samples, and the diagnosis."""
        return {
            **self.facts,
            "samples": self.samples,
            "points": {
                _joined_name(stack, point): _medians(table)
                for (stack, point), table in self.states.items()
            },
            "heads": {stack: _medians(table) for stack, table in self.heads.items()},
            "norms": {
                name: {measure: float(np.nanmedian(a)) for measure, a in table.items()}
                for name, table in self.norms.items()
            },
            "diagnosis": self.diagnosis.to_dict(),
        }

    def save(self, path: Any) -> str:
        """All arrays as a NetCDF4 file, which `load_profile` and xarray read. Returns the path."""
        arrays: dict[str, tuple] = {}
        names: list[list] = []
        groups: dict[str, Mapping] = {
            "states": self.states,
            "heads": self.heads,
            "norms": self.norms,
        }
        for group, tables in groups.items():
            for key, table in tables.items():
                number = len(names)
                names.append([group, *(key if isinstance(key, tuple) else (key,))])
                for measure, array in table.items():
                    axes = tuple(f"{axis}_{number}" for axis in range(array.ndim))
                    arrays[f"{number}_{measure}"] = (axes, array, {"measure": measure})
        attributes = {
            "title": _FORMAT, "facts": json.dumps(self.facts), "tables": json.dumps(names)
        }  # fmt: skip
        path = as_path(path)
        with written_whole(path) as temporary:
            netcdf.write(temporary, netcdf.Labelled(arrays, attributes))
        return str(path)


def load_profile(path: Any) -> Profile:
    """The profile that `Profile.save` wrote. Raises ValueError for any other file."""
    path = as_path(path)
    if not path.exists():
        raise ValueError(f"no profile at {path}; check the path given")
    try:
        arrays, attributes = netcdf.read(path)
        if attributes.get("title") != _FORMAT:
            raise ValueError(f"its title is not {_FORMAT!r}")
        groups: dict[str, dict] = {"states": {}, "heads": {}, "norms": {}}
        for number, (group, *key) in enumerate(json.loads(attributes["tables"])):
            place = tuple(key) if group == "states" else key[0]
            groups[group][place] = {
                name.split("_", 1)[1]: array
                for name, (_, array, _) in arrays.items()
                if name.split("_", 1)[0] == str(number)
            }
        return Profile(**groups, facts=json.loads(attributes["facts"]))
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: not a profile of a model ({error})") from None


def joined(profiles: Sequence[Profile]) -> Profile:
    """The profile of the samples of all of them, one after another.

    Raises ValueError unless they are of the same model, points and layers.
    """
    first, *others = profiles
    for other in others:
        if other.facts != first.facts or other.states.keys() != first.states.keys():
            raise ValueError(
                f"profiles of one model, change and set of points are joined; got "
                f"{shown(first.facts)} and {shown(other.facts)}"
            )

    def along(tables: Sequence[Mapping], axis: int) -> dict:
        return {
            key: {name: np.concatenate([t[key][name] for t in tables], axis) for name in table}
            for key, table in tables[0].items()
        }

    return Profile(
        along([p.states for p in profiles], 1),
        along([p.heads for p in profiles], 1),
        along([p.norms for p in profiles], 0),
        first.facts,
    )


def _table(rows: Mapping[tuple[int, ...], Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Arrays by measure from rows by index; NaN where there is no row."""
    shape = tuple(max(index) + 1 for index in zip(*rows, strict=True))
    arrays: dict[str, np.ndarray] = {}
    for index, row in rows.items():
        for name, value in row.items():
            if name not in arrays:
                arrays[name] = np.full(shape + np.shape(value), np.nan)
            arrays[name][index] = value
    return arrays


def _stacked(tables: Mapping[tuple[int, ...], Mapping], dims: tuple[str, ...]) -> dict[str, tuple]:
    """Tables by place as one array a measure, NaN where a table is smaller or has no such one."""
    arrays: dict[str, list] = {}
    for place, table in tables.items():
        for name, array in table.items():
            arrays.setdefault(name, []).append((place, array))
    variables = {}
    for name, parts in arrays.items():
        outer = [max(index) + 1 for index in zip(*tables, strict=True)]
        inner = [max(sizes) for sizes in zip(*(array.shape for _, array in parts), strict=True)]
        whole = np.full(outer + inner, np.nan)
        for place, array in parts:
            whole[place + tuple(slice(size) for size in array.shape)] = array
        variables[name] = (dims, whole)
    return variables


def _medians(table: Mapping[str, np.ndarray]) -> dict[str, list]:
    return {name: np.nanmedian(array, axis=1).tolist() for name, array in table.items()}


def _joined_name(stack: str, point: str) -> str:
    return f"{stack}: {point}" if stack else point


def _label(point: str, k: int, layers: int) -> str:
    """What a row of the table is called."""
    if point == "layers_output":
        return f"block {k}"
    return point if layers == 1 else f"{point} {k}"


#: Columns of the table: title, width, digits.
_COLUMNS = {
    "relative_mu": ("mu/||X||", 10, 3),
    "relative_mu_without_sinks": ("no sinks", 10, 3),
    "stable_rank": ("stable rank", 13, 3),
    "stable_rank_without_sinks": ("no sinks", 10, 3),
    "effective_rank": ("eff. rank", 11, 3),
    "mean_abs_cosine": ("|cosine|", 10, 2),
    "norm_median": ("norm", 9, 3),
    "norm_max": ("largest", 9, 3),
    "sinks": ("sinks", 7, 2),
}
_HEADER = f"{'':<22}" + "".join(f"{title:>{width}}" for title, width, _ in _COLUMNS.values())
