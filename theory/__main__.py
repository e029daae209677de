"""``python -m theory``: check every lemma; ``list``: their names; ``show NAME``: one's steps."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from pathlib import Path

try:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from theory import lemmas
    from theory.document import document, section
    from theory.runner import Result, carry_out, carry_out_all
except ModuleNotFoundError as error:
    print(f"theory: {error.name} is missing; pip install -e '.[theory]'", file=sys.stderr)
    sys.exit(2)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all hold, 1 one fails, 2 bad input."""
    parser = argparse.ArgumentParser(prog="theory", description="Check dynsim's lemmas with sympy.")
    parser.add_argument(
        "--latex", type=Path, metavar="FILE", help="write all of them as a document"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="P", help="processes (default 2)")
    commands = parser.add_subparsers(dest="command", metavar="[list | show NAME]")
    commands.add_parser("list", help="print every lemma's name and claim, without checking any")
    show = commands.add_parser("show", help="print one lemma with the steps of its check")
    show.add_argument("name", help="as `list` prints it; - and _ are the same")
    show.add_argument(
        "--latex", dest="as_latex", action="store_true", help="print it as LaTeX (amsthm)"
    )
    options = parser.parse_args(argv)
    if options.command == "list":
        return _list()
    if options.command == "show":
        return _show(options.name.replace("_", "-"), options.as_latex)
    if options.workers < 1:
        return _refuse(f"--workers is at least 1; got {options.workers}")
    if options.latex and options.latex.is_dir():
        return _refuse(f"--latex {options.latex} is a folder; name a file")
    if options.latex and not options.latex.absolute().parent.is_dir():
        return _refuse(
            f"--latex {options.latex} is in no folder; make {options.latex.parent} first"
        )
    return _check_all(options.workers, options.latex)


def _refuse(message: str) -> int:
    print(f"theory: {message}", file=sys.stderr)
    return 2


def _check_all(workers: int, latex: Path | None) -> int:
    known = lemmas()
    results = {}
    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("checking", total=len(known))
        for result in carry_out_all(known, workers):
            results[result.name] = result
            bar.update(task, advance=1, description=result.name)
    table = _table("lemma", "source", "statement", "how", "time", "verdict")
    for name, lemma in known.items():
        said, result = lemma.statement(), results[name]
        seconds = f"{result.seconds:.2f} s"
        table.add_row(name, said.source, said.claim, said.how, seconds, _verdict(result))
    _print(table)
    failed = [name for name in known if not results[name].holds]
    failures = "".join(f"; {name} FAILS" for name in failed)
    print(f"{len(known) - len(failed)} of {len(known)} hold{failures}")
    if latex:
        latex.write_text(document(known, results))
        print(f"wrote {latex}")
    return 1 if failed else 0


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def _verdict(result: Result) -> str:
    return "holds" if result.holds else f"FAILS {result.error}".rstrip()


def _list() -> int:
    table = _table("lemma", "claim")
    for name, lemma in lemmas().items():
        table.add_row(name, lemma.statement().claim)
    _print(table)
    return 0


def _show(name: str, as_latex: bool) -> int:
    known = lemmas()
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, cutoff=0.4))
        meant = f"did you mean {near}? " if near else ""
        return _refuse(f"unknown lemma {name!r}; {meant}`python -m theory list` names all")
    said, result = known[name].statement(), carry_out(name)
    if as_latex:
        print(section(known[name], result))
        return 0 if result.holds else 1
    print(f"{name}\n")
    for heading in ("claim", "source", "hypotheses", "how", "latex"):
        print(
            textwrap.fill(f"{heading:12}{getattr(said, heading)}", 100, subsequent_indent=" " * 12)
        )
    print()
    for number, step in enumerate(result.proof.steps, 1):
        decided = {True: "", False: "  FAILS", None: "  (in words)"}[step.holds]
        print(textwrap.fill(f"{number:3}. {step.reason}", 100, subsequent_indent=" " * 5) + decided)
        if step.plain:
            print(textwrap.indent(textwrap.fill(step.plain, 93), " " * 7))
    print(f"\nrejects     {'; '.join(known[name].wrong)}")
    print(f"verdict     {_verdict(result)}, {result.seconds:.2f} s")
    return 0 if result.holds else 1


if __name__ == "__main__":
    sys.exit(main())
