"""The house: imports flow one way, nothing heavy at import, kernels and theory stand alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOORS = ("__main__", "run", "equilibria.__main__", "geometry.__main__")

#: Rooms from the ground up: a room imports those before it, and its own modules.
ROOMS = [
    *("_version", "_values", "_words", "_files", "_seeds", "_memory", "_spectra", "_threads"),
    *("kernels", "masks", "measures", "network", "geometry", "engines", "results", "simulation"),
    *("collapse", "equilibria", "models", "sweeps", "reports", "cli"),
]


def room_of(name):
    return name.removeprefix("dynsim.").split(".")[0]


def imported(path):
    """Names of all modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module):
            yield from modules_of(node)


def modules_of(node):
    """The modules that one import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    found = {name for alias in node.names if is_module(name := f"{node.module}.{alias.name}")}
    return found or {node.module}


def is_module(name):
    place = ROOT.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = sorted((ROOT / "dynsim").glob("*/*.py")) + sorted((ROOT / "dynsim").glob("[!_]*.py"))
SOURCES += [p for p in (ROOT / "dynsim").glob("_*.py") if not p.name.startswith("__")]


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_point_down(path):
    module = module_of(path)
    door = module.removeprefix("dynsim.") in DOORS
    allowed = ["cli"] if door else ROOMS[: ROOMS.index(room_of(module)) + 1]
    others = {name for name in imported(path) if name.startswith("dynsim.")}
    assert {room_of(name) for name in others} <= set(allowed)
    assert not {name.removeprefix("dynsim.") for name in others} & set(DOORS)


def test_no_room_imports_its_modules_in_a_circle():
    uses = {
        module_of(path): {
            name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in modules_of(node)
        }
        for path in SOURCES
    }
    done = set()
    while left := uses.keys() - done:
        free = {m for m in left if not (uses[m] & left) - {m}}
        assert free, f"a circle among {sorted(left)}"
        done |= free


def test_kernels_import_nothing_of_dynsim():
    for path in (ROOT / "dynsim" / "kernels").glob("*.py"):
        names = {name for name in imported(path) if not name.startswith("dynsim.kernels")}
        roots = {name.split(".")[0] for name in names}
        assert roots <= {*sys.stdlib_module_names, "llvmlite", "numba", "numpy"}, path


def test_theory_never_imports_dynsim():
    for path in (ROOT / "theory").rglob("*.py"):
        assert not any(name.split(".")[0] == "dynsim" for name in imported(path)), path


def test_the_checker_of_certificates_knows_nothing_of_how_they_are_made():
    ours = {f"dynsim.equilibria.{name}" for name in ("schema", "balls", "exact")}
    for checker in ("schema", "balls", "exact", "verification"):
        names = set(imported(ROOT / "dynsim" / "equilibria" / f"{checker}.py")) - ours
        roots = {name.split(".")[0] for name in names}
        assert roots <= {*sys.stdlib_module_names, "flint"}, checker


def test_experiments_use_public_names_only():
    for path in (ROOT / "experiments").rglob("*.py"):
        tree = ast.parse(path.read_text())
        private = {name for name in imported(path) if name.startswith("dynsim._")}
        assert not private or path.parent.name == "soundness", (
            path
        )  # which tries private parts, too
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                public = not node.attr.startswith("_") or node.attr.startswith("__")
                assert public or node.attr == "_replace", path  # of named tuples


def test_import_dynsim_is_light_and_quick():
    code = (
        "import sys, time; begun = time.perf_counter(); import dynsim; "
        "print(time.perf_counter() - begun); "
        "print([m for m in ('torch', 'sympy', 'matplotlib', 'pandas', 'numba', 'scipy', 'xarray', "
        "'plotly') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    seconds, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert float(seconds) < 1.0


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [("theory", "sympy", "theory"), ("experiments", "mpmath", "all")],
)
def test_a_command_of_the_checkout_names_the_package_that_is_missing(command, package, extra):
    code = (
        f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv[1:] = ['list']; "
        f"runpy.run_module({command!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    assert done.stderr == f"{command}: {package} is missing; pip install -e '.[{extra}]'\n"


def test_every_public_name_exists():
    import dynsim

    for name in dynsim.__all__:
        assert getattr(dynsim, name) is not None
    with pytest.raises(AttributeError, match="it has"):
        dynsim.no_such_name  # noqa: B018


def test_every_module_lists_what_it_offers():
    for path in SOURCES:
        if path.stem in ("__init__", "__main__", "run", "_version") or "kernels" in path.parts:
            continue
        assert "__all__" in path.read_text(), path
