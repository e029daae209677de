"""What an experiment leaves behind: a figure, its data, and a JSON sidecar."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from types import ModuleType

import numpy as np

from dynsim import plots
from dynsim.results import style, written_whole

__all__ = [
    "Verdict",
    "carry_out",
    "commit_of_code",
    "draw_again",
    "judged",
    "read",
    "read_data",
    "sidecar_of",
    "write_figure",
    "write_report",
]

#: Whose versions are written down, where they are loaded.
PACKAGES = ("dynsim", "numpy", "scipy", "numba", "matplotlib", "torch", "mpmath")


@dataclass(frozen=True)
class Verdict:
    """A claim, what the paper has for it, what was measured, and whether it was reproduced.

    `only_with` names what the paper does not say and the claim needs, where it fails without.
    `lacking` names what cannot be had here, without which the claim cannot be judged.
    """

    statement: str
    paper: str
    measured: dict
    tolerance: str
    reproduced: bool
    only_with: str = ""
    lacking: str = ""

    @property
    def failed(self) -> bool:
        """The data speak against the claim, and nothing that the paper leaves open saves it."""
        return not (self.reproduced or self.only_with or self.lacking)

    @property
    def outcome(self) -> str:
        """In words: reproduced, NOT reproduced, reproduced only with something, not testable."""
        if self.lacking:
            return f"not testable here without {self.lacking}"
        if self.only_with:
            return f"reproduced only with {self.only_with}"
        return "reproduced" if self.reproduced else "NOT reproduced"


def carry_out(
    name: str, experiment: ModuleType, settings: str, seed: int, folder: Path, progress, **look
) -> list[Verdict]:
    """Compute, judge and draw; write NAME.png, NAME.npz and NAME.json, each whole or not at all.

    With several claims, an experiment has `claims(data)` instead of `claim(data)`. `look` is what
    `write_figure` takes.
    """
    commit = commit_of_code()  # of the code that runs, before the figures change the tree
    begun, spent = time.perf_counter(), _processor_time()
    checkpoints = folder / "checkpoints" / f"{name}-{settings}-{seed}"
    resumed = checkpoints.exists()
    kept = {"checkpoints": checkpoints} if _is_resumable(experiment) else {}
    data = experiment.compute(experiment.SETTINGS[settings], seed, progress, **kept)
    runtime, cpu = time.perf_counter() - begun, _processor_time() - spent
    verdicts = judged(experiment, data)
    write_figure(name, experiment, data, folder, **look)
    with written_whole(folder / f"{name}.npz") as temporary:
        np.savez_compressed(temporary, **data)
    several = hasattr(experiment, "claims")
    sidecar = {
        "experiment": name,
        "paper": experiment.PAPER,
        "settings": {"name": settings, **experiment.SETTINGS[settings]},
        "seed": seed,
        **(
            {"verdicts": [asdict(verdict) | {"outcome": verdict.outcome} for verdict in verdicts]}
            if several
            else {"verdict": asdict(verdicts[0])}
        ),
        "runtime_s": round(runtime, 1),
        "processor_s": round(cpu, 1),
        "resumed": resumed,
        "versions": _versions(),
        "commit": commit,
    }
    with written_whole(sidecar_of(folder, name)) as temporary:
        temporary.write_text(json.dumps(sidecar, indent=2) + "\n")
    return verdicts


def judged(experiment: ModuleType, data) -> list[Verdict]:
    """All verdicts on data."""
    return experiment.claims(data) if hasattr(experiment, "claims") else [experiment.claim(data)]


def write_figure(
    name: str, experiment: ModuleType, data, folder: Path,
    formats=("png",), width: str = "page", title: bool = True,
) -> None:  # fmt: skip
    """Draw in the style of the project and write NAME in every format."""
    with style.context():
        figure = style.fit(experiment.draw(data), width, title)
    for suffix in formats:
        plots.save(figure, folder / f"{name}.{suffix}")


def draw_again(name: str, experiment: ModuleType, folder: Path, **look) -> list[Verdict]:
    """The figure from the data that lie in the folder; returns what they say of the claims.

    Raises FileNotFoundError where they lie not.
    """
    data = read_data(folder, name)
    write_figure(name, experiment, data, folder, **look)
    return judged(experiment, data)


def read_data(folder: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of an experiment."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def sidecar_of(folder: Path, name: str) -> Path:
    """Where settings, seed, runtime and verdicts of an experiment are written down."""
    return folder / f"{name}.json"


def read(path: Path) -> dict | None:
    """What a JSON file holds; None without a file."""
    return json.loads(path.read_text()) if path.exists() else None


def _processor_time() -> float:
    """Seconds of all threads and finished children of this process."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def write_report(reports, folder: Path) -> None:
    """Write soundness.json: what each storm tried and found."""
    found = {
        "storms": {report.name: report.to_dict() for report in reports},
        "versions": _versions(),
        "commit": commit_of_code(),
    }
    with written_whole(folder / "soundness.json") as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n")


def _versions() -> dict[str, str]:
    loaded = {name: version(name) for name in PACKAGES if name in sys.modules}
    if "flint" in sys.modules:
        loaded["python-flint"] = version("python-flint")
    return loaded | {"python": platform.python_version()}


def _is_resumable(experiment: ModuleType) -> bool:
    """It takes a folder for what it needs to go on after an interruption."""
    return "checkpoints" in signature(experiment.compute).parameters


def commit_of_code() -> str | None:
    """The commit of the code that ran, marked where the tree had changes; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    here = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
