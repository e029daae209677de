"""What was measured of a model: by point, layer and text, as a table, a dataset, a figure, a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynsim._files import written_whole
from dynsim.models.diagnosis import Diagnosis, diagnose
from dynsim.models.states import STATE

__all__ = ["Profile", "load_profile"]


@dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """Measures of hidden states by layer and text.

    Attributes
    ----------
    states : mapping (stack, point) -> mapping measure -> array (layers, texts)
    heads : mapping stack -> mapping statistic -> array (layers, texts, heads)
    norms : mapping name of a norm -> mapping measure -> array (texts,)
    facts : what is known of the model: its name, the epsilon of its type, its points' sources
    """

    states: Mapping[tuple[str, str], Mapping[str, np.ndarray]]
    heads: Mapping[str, Mapping[str, np.ndarray]]
    norms: Mapping[str, Mapping[str, np.ndarray]]
    facts: Mapping[str, Any]

    @classmethod
    def of_rows(cls, rows: Mapping, head_rows: Mapping, norm_rows: Mapping, facts: Mapping) -> Profile:
        """From rows of measures by (stack, point, layer, text), and those of heads and norms."""
        states = {
            key: _table({(k, text): row for (s, p, k, text), row in rows.items() if (s, p) == key})
            for key in dict.fromkeys((s, p) for s, p, *_ in rows)
        }
        heads = {
            stack: _table({(k, text): row for (s, k, text), row in head_rows.items() if s == stack})
            for stack in dict.fromkeys(s for s, *_ in head_rows)
        }
        norms = {
            name: _table({(text,): row for (_, n, text), row in norm_rows.items() if n == name})
            for name in dict.fromkeys(n for _, n, _ in norm_rows)
        }
        return cls(states, heads, norms, facts)

    @property
    def stacks(self) -> list[str]:
        """Names of the model's stacks of blocks."""
        return list(dict.fromkeys(stack for stack, _ in self.states))

    def residual(self, name: str, stack: str | None = None) -> np.ndarray:
        """A measure of the embeddings and of the residual stream after every block,
        (blocks + 1, texts)."""
        stack = self.stacks[0] if stack is None else stack
        parts = [self.states[(stack, point)][name] for point in ("embeddings", "layers_output")
                 if (stack, point) in self.states]  # fmt: skip
        return np.concatenate(parts)

    @property
    def diagnosis(self) -> Diagnosis:
        """One sentence on the last stack of the model, and the numbers that it rests on."""
        stack = self.stacks[-1]
        names = ("relative_mu", "relative_mu_without_sinks", "stable_rank", "effective_rank",
                 "stable_rank_without_sinks", "sinks", "floor")  # fmt: skip
        return diagnose({name: self.residual(name, stack) for name in names})

    @property
    def dataset(self) -> Any:
        """As an xarray.Dataset: a variable a measure, dims stack, point, layer, text (and head);
        NaN where a point has no such layer."""
        import xarray

        points = list(dict.fromkeys(point for _, point in self.states))
        layers = max(len(next(iter(t.values()))) for t in self.states.values())
        texts = next(iter(next(iter(self.states.values())).values())).shape[1]
        found = {}
        for name in STATE:
            array = np.full((len(self.stacks), len(points), layers, texts), np.nan)
            for (stack, point), table in self.states.items():
                rows = table[name]
                array[self.stacks.index(stack), points.index(point), : len(rows)] = rows
            found[name] = (("stack", "point", "layer", "text"), array, {"long_name": STATE[name]})
        for stack, table in self.heads.items():
            for name, array in table.items():
                dims = tuple(f"{dim} of {stack}" for dim in ("layer", "text", "head"))
                found[f"{name} of {stack}"] = (dims, array)
        coordinates = {"stack": self.stacks, "point": points}
        return xarray.Dataset(found, coordinates, dict(self.facts) | {"sources": json.dumps(self.facts["sources"])})

    def __str__(self) -> str:
        lines = [f"{self.facts['model']}: medians over {self._texts()} texts"]
        for stack in self.stacks:
            lines += ["", f"{stack}", _HEADER]
            tables = {n: np.median(self.residual(n, stack), axis=1) for n in _COLUMNS}
            start = int((stack, "embeddings") in self.states)
            for k in range(len(tables["relative_mu"])):
                label = "embeddings" if start and not k else f"block {k - start}"
                lines.append(f"{label:<12}" + "".join(
                    f"{tables[name][k]:>{width}.{digits}g}"
                    for name, (_, width, digits) in _COLUMNS.items()))  # fmt: skip
        return "\n".join([*lines, "", f"diagnosis  {self.diagnosis.sentence}"])

    def _texts(self) -> int:
        return int(next(iter(next(iter(self.states.values())).values())).shape[1])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: medians over texts, and the diagnosis."""
        return {
            **{key: value for key, value in self.facts.items()},
            "texts": self._texts(),
            "points": {
                f"{stack}: {point}": {n: np.median(a, axis=1).tolist() for n, a in table.items()}
                for (stack, point), table in self.states.items()
            },
            "heads": {
                stack: {n: np.median(a, axis=1).tolist() for n, a in table.items()}
                for stack, table in self.heads.items()
            },
            "norms": {
                name: {n: float(np.median(a)) for n, a in table.items()}
                for name, table in self.norms.items()
            },
            "diagnosis": self.diagnosis.to_dict(),
        }

    def plot(self) -> Any:
        """A matplotlib figure: distances, ranks, norms and heads by layer."""
        from dynsim.models.plots import profile

        return profile(self)

    def save(self, path: Any) -> str:
        """All arrays as an .npz file; `load_profile` reads it. Returns the path."""
        arrays = {
            f"{kind}|{'|'.join(key) if isinstance(key, tuple) else key}|{name}": array
            for kind, tables in (("states", self.states), ("heads", self.heads), ("norms", self.norms))
            for key, table in tables.items()
            for name, array in table.items()
        }
        with written_whole(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, facts=np.array(json.dumps(dict(self.facts))), **arrays)
        return str(path)


def load_profile(path: Any) -> Profile:
    """The profile that `Profile.save` wrote. Raises ValueError for any other file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            tables: dict[str, dict] = {"states": {}, "heads": {}, "norms": {}}
            for entry in file.files:
                if entry == "facts":
                    continue
                kind, *key, name = entry.split("|")
                if kind in tables:
                    place = tuple(key) if kind == "states" else key[0]
                    tables[kind].setdefault(place, {})[name] = file[entry]
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: not a profile of a model ({error})") from None
    return Profile(**tables, facts=facts)


def _table(rows: Mapping[tuple, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Arrays by measure from rows by index."""
    shape = tuple(max(index) + 1 for index in zip(*rows, strict=True))
    first = next(iter(rows.values()))
    found = {}
    for name, value in first.items():
        array = np.full(shape + np.shape(value), np.nan)
        for index, row in rows.items():
            array[index] = row[name]
        found[name] = array
    return found


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
_HEADER = f"{'':<12}" + "".join(f"{title:>{width}}" for title, width, _ in _COLUMNS.values())
