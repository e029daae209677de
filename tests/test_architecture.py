"""The house: imports flow one way, nothing heavy at import, kernels and theory stand alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Rooms from the ground up: a room may import those on floors below its own.
FLOORS = [
    ["kernels", "cli.process"],
    ["values", "equilibria.form"],
    ["equilibria.proof"],
    ["equilibria.exact"],
    ["equilibria.verification"],
    ["files", "netcdf", "rational", "seeds", "memory"],
    ["layout", "spectra", "threads"],
    ["masks", "walk"],
    ["nonnormal"],
    ["connectivity", "tokens", "weights", "norms", "mlp", "dropout"],
    ["dynamics", "measures"],
    ["geometry.decomposition", "selectability", "gaussian_keys"],
    ["geometry.ellipsoid"],
    ["geometry.layers"],
    ["geometry"],
    ["jacobian"],
    ["minilm", "deviation", "rounding"],
    ["engines.base", "engines.packing", "engines.tiles", "engines.workers"],
    ["engines.lanes", "engines.rows"],
    ["engines.deviations", "engines.single"],
    ["engines.reference", "engines.compiled", "engines.torch"],
    ["engines.follower"],
    ["engines.logscale"],
    ["engines"],
    ["trajectory"],
    ["simulation"],
    ["equilibria.construct", "equilibria.newton", "equilibria.affine", "equilibria.stability"],
    ["equilibria.equilibrium", "equilibria.equation", "equilibria.rounds"],
    ["equilibria.rotating"],
    ["equilibria.search", "equilibria.design", "equilibria.descent", "equilibria.certify"],
    ["equilibria"],
    ["basins", "continuation", "lyapunov"],
    ["enclosures"],
    ["contraction"],
    ["certificates", "gram", "predictions", "rates"],
    ["expectations"],
    ["verdicts"],
    ["plots", "report"],
    ["cli.specs", "cli.artist", "cli.guard"],
    ["cli.options"],
    ["cli.jobs"],
    ["cli.output"],
    ["cli.run", "cli.equilibria", "cli.verify", "cli.basins", "cli.lyapunov", "cli.design"],
    ["cli.continuation", "cli.geometry"],
    ["cli"],
    ["__main__"],
    ["run", "equilibria.__main__", "geometry.__main__"],
]
FLOOR = {room: k for k, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path):
    parts = path.relative_to(ROOT / "dynsim").with_suffix("").parts
    if parts[0] == "kernels":
        return "kernels"
    return ".".join(p for p in parts if p != "__init__")


def imported(path):
    """Names of the modules a file imports, anywhere in it; package.name where that is a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("dynsim.") in FLOOR else node.module


def rooms_imported(path):
    for name in imported(path):
        if name.startswith("dynsim."):
            words = name.split(".")[1:]
            for room in (".".join(words[:2]), words[0]):
                if room in FLOOR:
                    yield room
                    break


SOURCES = [p for p in (ROOT / "dynsim").rglob("*.py") if p != ROOT / "dynsim" / "__init__.py"]


@pytest.mark.parametrize("path", SOURCES, ids=room_of)
def test_imports_point_down(path):
    room = room_of(path)
    assert room in FLOOR, f"give {room} a floor"
    for other in rooms_imported(path):
        if other != room:
            assert FLOOR[other] < FLOOR[room], f"{room} imports {other}, which is not below it"


def test_kernels_import_nothing_of_dynsim():
    for path in (ROOT / "dynsim" / "kernels").glob("*.py"):
        names = {name for name in imported(path) if not name.startswith("dynsim.kernels")}
        roots = {name.split(".")[0] for name in names}
        assert roots <= {*sys.stdlib_module_names, "llvmlite", "numba", "numpy"}, path


def test_theory_never_imports_dynsim():
    for path in (ROOT / "theory").rglob("*.py"):
        assert not any(name.split(".")[0] == "dynsim" for name in imported(path)), path


def test_the_checker_of_certificates_knows_nothing_of_how_they_are_made():
    ours = {f"dynsim.equilibria.{name}" for name in ("form", "proof", "exact")}
    for checker in ("form", "proof", "exact", "verification"):
        names = set(imported(ROOT / "dynsim" / "equilibria" / f"{checker}.py")) - ours
        roots = {name.split(".")[0] for name in names}
        assert roots <= {*sys.stdlib_module_names, "flint"}, checker


def test_experiments_use_public_names_only():
    for path in (ROOT / "experiments").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_") or node.attr.startswith("__"), path


def test_import_dynsim_is_light_and_quick():
    code = (
        "import sys, time; begun = time.perf_counter(); import dynsim; "
        "print(time.perf_counter() - begun); "
        "print([m for m in ('torch', 'sympy', 'matplotlib', 'pandas', 'numba', 'scipy', 'xarray') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    seconds, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert float(seconds) < 1.0


def test_every_public_name_exists():
    import dynsim

    for name in dynsim.__all__:
        assert getattr(dynsim, name) is not None
    with pytest.raises(AttributeError, match="it has"):
        dynsim.no_such_name  # noqa: B018


def test_every_module_lists_what_it_offers():
    for path in SOURCES:
        if path.name in ("__init__.py", "__main__.py", "run.py") or "kernels" in path.parts:
            continue
        assert "__all__" in path.read_text(), path
