"""``python -m theory``: check every lemma. ``python -m theory show NAME``: one with its steps."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.table import Table

from theory import lemmas


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all hold, 1 one fails, 2 bad input."""
    parser = argparse.ArgumentParser(prog="theory", description="Check dynsim's lemmas with sympy.")
    commands = parser.add_subparsers(dest="command", metavar="[show NAME]")
    show = commands.add_parser("show", help="print one lemma with the steps of its check")
    show.add_argument("name")
    options = parser.parse_args(argv)
    known = lemmas()
    if options.command != "show":
        return _check_all(known)
    if options.name not in known:
        print(
            f"theory: unknown lemma {options.name!r}; known are {', '.join(known)}", file=sys.stderr
        )
        return 2
    return _show(known[options.name])


def _check_all(known) -> int:
    table = Table(box=None, pad_edge=False)
    for heading in ("lemma", "source", "statement", "how", "time", "verdict"):
        table.add_column(heading, overflow="fold")
    failed = 0
    for lemma in known.values():
        begun = time.perf_counter()
        holds = lemma.check().holds
        failed += not holds
        seconds = f"{time.perf_counter() - begun:.2f} s"
        verdict = "holds" if holds else "FAILS"
        table.add_row(lemma.name, lemma.source, lemma.statement, lemma.method, seconds, verdict)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    return 1 if failed else 0


def _show(lemma) -> int:
    proof = lemma.check()
    print(f"{lemma.name}\n  {lemma.statement}\n")
    print(f"source      {lemma.source}\nhypotheses  {lemma.hypotheses}")
    print(f"method      {lemma.method}\nlatex       {lemma.latex}\n")
    for number, (claim, rest) in enumerate(proof.steps, 1):
        print(f"  {number}. {claim}: left minus right = {rest}")
    print(f"\n{'holds' if proof.holds else 'FAILS'}")
    return 0 if proof.holds else 1


if __name__ == "__main__":
    sys.exit(main())
