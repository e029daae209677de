"""``dynsim equilibria``: find equilibria of every rank, judge, list and draw them."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import describe
from dynsim.cli import options as shared
from dynsim.cli import output, report
from dynsim.cli.command import Command, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from dynsim.equilibria import Equilibrium, Search
    from dynsim.network.dynamics import AttentionDynamics
    from dynsim.reports.page import Page

    #: The dynamics, the dimension of tokens, and the ranks to keep.
    Plan = tuple[AttentionDynamics, int, str | list[int]]
    #: Equilibria, and whether they are of WU's family.
    Listed = list[tuple[Equilibrium, bool]]

__all__ = ["COMMAND", "main"]

NOTES = """Unless said otherwise tokens are scaled to unit norm (--ln on), attention is uniform
(--scores zero), weights are the same in all layers, and the dimension is the number of tokens.
After Ctrl-C the same command goes on: what was found is kept in the folder --out.
"""
EXAMPLES = """\
  python -m dynsim.equilibria --mask causal --value jordan:6 --tokens 5
      equilibria of every rank (WU, Theorem 3 and App. F)
  python -m dynsim.equilibria --mask causal --value jordan:2 --tokens 2
      the two-token example of WU, section 4.3.1
  python -m dynsim.equilibria --scores gaussian:3 --value gaussian --tokens 4 --starts 200 --json
      random weights under the complete mask
"""
#: Rows of the table of equilibria, unless all are asked for.
ROWS = 12


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_iterated_options(parser)
    group = parser.add_argument_group("search")
    group.add_argument("--ranks", default="all", metavar="A,B,...", help="ranks to keep")
    group.add_argument(
        "--starts",
        type=int,
        default=64,
        metavar="S",
        help="random starts for each branch and component",
    )
    group.add_argument("--no-flips", action="store_true", help="no sign flips")
    group.add_argument(
        "--basin-samples", type=int, default=16, metavar="S",
        help="runs that measure the basin of each stable one, for each radius; 0 for none",
    )  # fmt: skip
    group = parser.add_argument_group("list")
    group.add_argument(
        "--all", action="store_true",
        help=f"list every equilibrium, also those that symmetries relate; else the first {ROWS}, "
        f"once each",
    )  # fmt: skip
    group.add_argument(
        "--certify",
        action="store_true",
        help="prove what can be proved, one certificate file an equilibrium (dynsim[certify])",
    )


def prepare(options: argparse.Namespace, words: list[str]) -> Plan:
    from dynsim.equilibria.rotating import check_rotations

    dynamics, d = shared.make_iterated(options)
    if min(dynamics.n_tokens, d) < 2:
        raise ValueError(
            f"equilibria are searched for two or more tokens and dimensions; got "
            f"{dynamics.n_tokens} and {d}; use --tokens 2 --dim 2 or more"
        )
    check_rotations(d)
    shared.check_starts(options.starts, dynamics.n_tokens, d)
    shared.check_starts(options.basin_samples, dynamics.n_tokens, d, "--basin-samples")
    return dynamics, d, _ranks(options.ranks)


def _ranks(text: str) -> str | list[int]:
    if text == "all":
        return text
    try:
        return [int(cell) for cell in text.split(",")]
    except ValueError:
        raise ValueError(f"--ranks is 'all' or whole numbers A,B,...; got {text!r}") from None


def compute(plan: Plan, options: argparse.Namespace, progress: Callable[[float], None]) -> Outcome:
    from dynsim.equilibria import find_equilibria, jordan_member
    from dynsim.masks.connectivity import facts

    dynamics, d, ranks = plan
    search = find_equilibria(
        dynamics, ranks, dim=d, starts=options.starts, flips=not options.no_flips,
        basin_samples=options.basin_samples, seed=options.seed, folder=options.out,
        progress=progress,
    )  # fmt: skip
    members = [jordan_member(dynamics, e.tokens) is not None for e in search.equilibria]
    data = {
        "mask": facts(dynamics.mask).to_dict(),
        "dynamics": describe(dynamics),
        "equilibria": [
            entry | {"wu_family": member}
            for e, member in zip(search.equilibria, members, strict=True)
            for entry in _entries(e, options.all)
        ],
        "table": _by_rank(search, members),
        "search": {
            "starts": search.starts,
            "converged": search.converged,
            "since_new": search.since_new,
            "unseen": search.unseen,
            "dropped": search.dropped,
            "seed": options.seed,
        },
    }
    title = f"{dynamics.mask.name}, {type(dynamics.norm).__name__}: {_sentence(search)}"
    outcome = Outcome(
        data=data,
        verdict=_sentence(search),
        table=_tables(search, members, dynamics, options.all),
        subject=dynamics.mask.name,
        draw=lambda plots: plots.equilibria(search, title),
        arrays=_arrays(search),
        page=lambda: _page(search, dynamics, options),
    )
    if options.certify:
        stem = output.stem("equilibria", outcome, options)
        outcome.files.extend(_certificates(search, dynamics, stem))
    return outcome


def _page(search: Search, dynamics: AttentionDynamics, options: argparse.Namespace) -> Page:
    """The page of --report."""
    from dynsim.reports import searches
    from dynsim.reports.settings import rows

    settings = [("mask", dynamics.mask.name), ("dynamics", report.describe_dynamics(dynamics))]
    given = {name: value for name, value in vars(options).items() if name not in output.OPTIONS}
    title = f"equilibria: {dynamics.mask.name}, {report.norm_in_words(dynamics.norm)}"
    return searches.page(search, dynamics, title, [_sentence(search)], settings + rows(given))


def _entries(equilibrium: Equilibrium, every: bool) -> list[dict]:
    entry = equilibrium.to_dict()
    if not every:
        return [entry]
    return [{**entry, "tokens": tokens.tolist()} for tokens in equilibrium.orbit]


def _arrays(search: Search) -> dict[str, np.ndarray]:
    """All of them one by one, with the number of the equilibrium that each belongs to."""
    states = [e.orbit for e in search.equilibria]
    shape = (0, *np.shape(states[0])[1:]) if states else (0, 0, 0)
    return {
        "tokens": np.concatenate([np.empty(shape), *states]),
        "equilibrium": np.repeat(np.arange(len(states)), [len(s) for s in states]),
    }


def _certificates(search: Search, dynamics: AttentionDynamics, stem: Path) -> list[str]:
    from dynsim.equilibria import certify, save_certificate

    files: list[str] = []
    refused: dict[str, list[int]] = {}
    for k, equilibrium in enumerate(search.equilibria):
        try:
            certificate = certify(dynamics, equilibrium.tokens)
        except ValueError as error:
            refused.setdefault(str(error), []).append(k)
            continue
        files.append(str(save_certificate(certificate, f"{stem}.certificate-{k}.json")))
    for reason, numbers in refused.items():
        which = f"{len(numbers)} equilibria, {numbers[0]} first" if numbers[1:] else numbers[0]
        print(f"dynsim equilibria: not certified ({which}): {reason}", file=sys.stderr)
    return files


def _by_rank(search: Search, members: list[bool]) -> list[dict]:
    """The search's table, and how many of each rank are of WU's family."""
    of_family: Counter[int] = Counter()
    for e, member in zip(search.equilibria, members, strict=True):
        of_family[e.rank] += len(e.orbit) * member
    return [row | {"wu_family": of_family[row["rank"]]} for row in search.table()]


def _sentence(search: Search) -> str:
    total = sum(len(e.orbit) for e in search.equilibria)
    ranks = _ranks_of(e for e in search.equilibria if e.kind == "stable")
    sentence = f"{total} found, {f'stable ones of rank {ranks}' if ranks else 'none stable'}"
    partly = _ranks_of(e for e in search.equilibria if e.approach and e.approach.returning > 0)
    if partly:
        sentence += f"; marginal ones of rank {partly} attract from a part of their surroundings"
    return sentence


def _ranks_of(equilibria: Iterable[Equilibrium]) -> str:
    return ", ".join(map(str, sorted({e.rank for e in equilibria})))


def _tables(search: Search, members: list[bool], dynamics: AttentionDynamics, every: bool) -> str:
    """Counts by rank, the equilibria one by one, and what the columns mean."""
    lines = [
        f"dynamics  {report.describe_dynamics(dynamics)}",
        f"mask      {dynamics.mask.name}",
        "",
    ]
    lines += _counts(search, members)
    listed = _listed(search, members, every)
    shown = listed if every else listed[:ROWS]
    lines += ["", *_rows(shown)]
    if len(shown) < len(listed):
        lines.append(f"... and {len(listed) - len(shown)} more (--all)")
    lines += _explained(search, shown)
    lines.append(
        f"\nsearch    {search.converged} of {search.starts} starts converged, the last "
        f"{search.since_new} brought nothing new; another would with probability about "
        f"{search.unseen:.2g}"
    )
    if search.dropped:
        lines.append(f"          {search.dropped} branches were not followed: too many")
    return "\n".join(lines)


def _counts(search: Search, members: list[bool]) -> list[str]:
    from dynsim.equilibria import KINDS

    columns = {name: name for name in ("rank", "found", *KINDS)}
    columns |= {"wu_family": "of WU"} if any(members) else {}
    rows = [columns, *_by_rank(search, members)]
    return ["  ".join(f"{row[name]:>8}" for name in columns) for row in rows]


def _listed(search: Search, members: list[bool], every: bool) -> Listed:
    """(equilibrium, whether of WU's family), by rank and then by stability."""
    from dynsim.equilibria import KINDS

    pairs = sorted(
        zip(search.equilibria, members, strict=True),
        key=lambda pair: (pair[0].rank, KINDS.index(pair[0].kind)),
    )
    return [pair for pair in pairs for _ in range(len(pair[0].orbit) if every else 1)]


def _rows(listed: Listed) -> list[str]:
    lines = [
        f"{'type':<10}{'rank':>5}{'orbit':>6}{'found':>6}  {'stability':<10}{'radius':>10}"
        f"{'error':>9}{'out':>6}{'growth':>9}{'basin':>9}{'residual':>10}"
    ]
    for e, member in listed:
        growth = f"{e.transient.growth:.3g}" if e.transient else "-"
        basin = "-" if e.basin_radius is None else f"{e.basin_radius:.2g}"
        rank = f"{e.rank}{'' if e.rank_is_sure else '?'}"
        least, undecided = e.stability.unstable_dimension, e.stability.marginal_dimension
        out = f"{least}-{least + undecided}" if undecided else f"{least}"
        lines.append(
            f"{e.type:<10}{rank:>5}{len(e.orbit):>6}{e.found:>6}  {e.kind:<10}"
            f"{e.spectral_radius:>10.6g}{e.stability.radius_error:>9.1g}{out:>6}{growth:>9}"
            f"{basin:>9}{e.residual:>10.1e}" + "  WU" * member
        )
    return lines


def _explained(search: Search, listed: Listed) -> list[str]:
    """What columns and marks of the table mean, those that are in it."""
    lines = [
        "radius    of the spectrum, with the error that rounding may have made; out: multipliers "
        "beyond 1, a-b\n          where rounding does not decide; growth: max ||J^k||; basin: the "
        "distance from which all of\n          some samples returned (measured)"
    ]
    if any(member for _, member in listed):
        lines.append("WU        of the family of WU, Theorem 3 and App. F, by its closed form")
    if any(e.kind == "marginal" for e, _ in listed):
        lines.append("marginal  rounding does not tell a multiplier from modulus 1: stable or not")
    for e in dict.fromkeys(e for e, _ in listed):
        if e.approach:
            lines.append(
                f"          rank {e.rank}: {e.approach.returning:.0%} of states 0.01 away return "
                f"(measured)" + f", like t^-{e.approach.exponent:.2g}" * (e.approach.returning > 0)
            )
    if not all(e.rank_is_sure for e, _ in listed):
        lines.append(
            "rank ?    a singular value is within a factor 100 of 1e-6 of the largest, the edge"
        )
    return lines


COMMAND = Command(
    name="equilibria",
    description="Find equilibria x' = x, sign flips x' = -x and rotating equilibria x' = x R; tell "
    "which are stable, and how far from them tokens may be to return.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    packages=lambda options: (*shared.packages(options), *("flint",) * options.certify),
    notes=NOTES,
    examples=EXAMPLES,
    label="searching",
    reports=True,
    resume="what was found so far is in {out}; the same command goes on from there",
)
main = COMMAND.main
