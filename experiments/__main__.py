"""``python -m experiments list | run NAME | all``"""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path

from experiments import experiments
from experiments.record import carry_out

FIGURES = Path(__file__).parent.parent / "figures"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all claims reproduced, 1 some not, 2 bad input, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="experiments", description=__doc__.strip("`"))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name every experiment and the paper's item")
    one = commands.add_parser("run", help="compute, draw and judge one experiment")
    one.add_argument("name")
    every = commands.add_parser("all", help="run every experiment")
    for command in (one, every):
        command.add_argument(
            "--settings", default="default", choices=("smoke", "default", "paper"),
            help="seconds, minutes, or as published (default)",
        )  # fmt: skip
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--out", type=Path, default=FIGURES, metavar="DIR")
    options = parser.parse_args(argv)
    known = experiments()
    if options.command == "list":
        for name, experiment in known.items():
            print(f"{name}\n    {experiment.PAPER}")
        return 0
    if options.command == "run" and options.name not in known:
        print(f"experiments: unknown name {options.name!r}; known are {', '.join(known)}",
              file=sys.stderr)  # fmt: skip
        return 2
    if options.out.exists() and not options.out.is_dir():
        print(f"experiments: --out {options.out} is a file; name a folder", file=sys.stderr)
        return 2
    names = list(known) if options.command == "all" else [options.name]
    try:
        verdicts = [_run(name, known[name], options) for name in names]
    except ModuleNotFoundError as error:
        print(f"experiments: {error.name} is missing; pip install 'dynsim[all]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("experiments: interrupted; the experiment under way wrote no results",
              file=sys.stderr)  # fmt: skip
        return 130
    return 0 if all(verdict.reproduced for verdict in verdicts) else 1


def _run(name, experiment, options):
    with _progress(name) as report:
        verdict = carry_out(name, experiment, options.settings, options.seed, options.out, report)
    print(
        f"{name}: {'reproduced' if verdict.reproduced else 'NOT reproduced'}: {verdict.statement}"
    )
    for key, value in verdict.measured.items():
        print(f"    {key}: {value}")
    for suffix in ("png", "npz", "json"):
        print(f"    wrote {options.out / name}.{suffix}")
    return verdict


@contextmanager
def _progress(name: str):
    """A bar on a terminal only; yields callable(share done, 0 to 1)."""
    if not sys.stderr.isatty():
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=1.0)
        yield lambda share: bar.update(task, completed=share)


if __name__ == "__main__":
    sys.exit(main())
