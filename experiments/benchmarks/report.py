"""What is shown of the measurements: tables for people, a figure, and JSON with everything."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from dynsim import plots
from dynsim.results import style, written_whole
from experiments.benchmarks.rivals import RIVALS
from experiments.benchmarks.scaling import MEMORY

__all__ = ["draw", "print_report", "write"]

HEADINGS = {"dynsim": "dynsim"} | {name: heading for name, (heading, *_) in RIVALS.items()}


def write(found: dict, folder: Path) -> list[Path]:
    """benchmarks.json and, where cases were timed, benchmarks.png, each whole or not at all."""
    name = "benchmarks" if found["complete"] else "benchmarks-incomplete"
    files = [folder / f"{name}.json"]
    with written_whole(files[0]) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    if found["cases"]:
        files.append(folder / f"{name}.png")
        plots.save(draw(found), files[1])
    return files


# --- tables -------------------------------------------------------------------------------------


def print_report(found: dict, console: Console) -> None:
    measures = found.get("measures", {})
    found = found | {"values": measures.get("values"), "calls": measures.get("calls")}
    for section, table in (
        ("cases", _ratio_table),
        ("scaling", _scaling_table),
        ("values", _values_table),
        ("calls", _calls_table),
        ("selectability", _selectability_table),
        ("accuracy", _accuracy_table),
        ("start", _start_table),
    ):
        if found.get(section):
            console.print(table(found[section]))
            console.print()
    for line in _absent(found):
        console.print(line, highlight=False, markup=False)
    peaks = found.get("peaks")
    if peaks:
        flops, exps, moved = ([f"{rate / 1e9:.3g}" for rate in peaks[key]]
                              for key in ("flops", "exps", "bytes"))  # fmt: skip
        console.print(
            f"peaks, 1 and {peaks['threads']} threads: multiply-adds {' and '.join(flops)} "
            f"Gflop/s, exp {' and '.join(exps)} G/s, memory {' and '.join(moved)} GB/s",
            highlight=False,
        )
    if not found["complete"]:
        console.print("INCOMPLETE: interrupted before all was measured")


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _ratio_table(cases: list[dict]) -> Table:
    table = _table(
        "Time per trajectory and layer, and how many times longer each rival takes",
        "size", "dynsim µs", "±%", *(HEADINGS[name] for name in RIVALS),
        "best rival", "target", "roofline", "differ by",
    )  # fmt: skip
    regime = None
    for case in cases:
        if case["regime"] != regime:
            regime = case["regime"]
            table.add_row(f"[bold]{regime}[/bold]")
        variants = case["variants"]
        mine = variants["dynsim"]
        present = _present(case)
        best = min(present, key=present.get, default=None)
        planned = min(case["target"], key=case["target"].get, default=None)
        table.add_row(
            case["size"],
            f"{mine['us']:.3g}",
            f"{100 * mine['spread']:.0f}",
            *(f"{present[name]:.3g}" if name in present else "absent" for name in RIVALS),
            f"{present[best]:.2f} {HEADINGS[best]}" if best else "-",
            f"{case['target'][planned]:g} {HEADINGS[planned]}" if planned else "-",
            f"{case['roofline']:.2f}",
            f"{max((variants[name]['difference'] for name in present), default=0.0):.0e}",
        )
    return table


def _present(case: dict) -> dict[str, float]:
    """The ratio of every rival that took part."""
    variants = case["variants"]
    return {name: variants[name]["ratio"] for name in RIVALS if "ratio" in variants.get(name, {})}


def _scaling_table(scaling: dict) -> Table:
    table = _table("Growth of dynsim", "what", "from", "to", "slope", "should be")
    for name, series in scaling["series"].items():
        values = series.get("seconds") or series["bytes"]
        ends = (
            [f"{value / 2**20:.3g} MiB" for value in values]
            if name == MEMORY
            else [f"{value * 1e3:.3g} ms" for value in values]
        )
        ends = [f"{size}: {value}" for size, value in zip(series["sizes"], ends, strict=True)]
        table.add_row(name, ends[0], ends[-1], f"{series['slope']:.2f}", f"{series['expected']}")
    for name, by_threads in scaling["threads"].items():
        timed = list(by_threads.items())
        one, most = timed[0], timed[-1]
        table.add_row(
            f"threads, {name}",
            *(f"{threads}: {seconds * 1e3:.3g} ms" for threads, seconds in (one, most)),
            f"x {one[1] / most[1]:.2f}",
            f"x {int(most[0])}",
        )
    return table


def _values_table(sizes: dict) -> Table:
    table = _table(
        "Time per matrix for all singular values, and how many times longer others take",
        "matrices", "dynsim µs", "±%", "numpy svd", "torch svdvals", "values", "differ by eps",
    )  # fmt: skip
    for size, row in sizes.items():
        ratios = [row["ratios"].get(name) for name in ("numpy", "torch")]
        table.add_row(
            f"{row['count']} of {size}", f"{row['us']['dynsim']:.3g}",
            f"{100 * row['spread']:.0f}",
            *("absent" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            row["values"], f"{row['difference']:.1f}",
        )  # fmt: skip
    return table


def _calls_table(calls: dict) -> Table:
    table = _table(
        "Time per trajectory and layer with the cheap measures alone, and how many times as long "
        "other calls take",
        "size", "cheap µs", "no `record=`", "records", "log-scale", "float32",
    )  # fmt: skip
    for size, row in calls.items():
        default, logscale, rough = (
            f"{row['ratios'][name]:.2f} ±{100 * row['spread'][name]:.0f}%"
            for name in ("default", "logscale", "float32")
        )
        cheap, records = f"{row['us']['cheap']:.3g}", f"{row['records']}"
        table.add_row(size, cheap, default, records, logscale, rough)
    return table


def _selectability_table(sizes: dict) -> Table:
    table = _table(
        "Time per key to decide whether a query selects it, Gaussian keys",
        "size", "dynsim µs", "±%", "linprog µs", "ratio", "keys a minute", "unselectable",
        "decisions",
    )  # fmt: skip
    for size, row in sizes.items():
        table.add_row(
            size, f"{row['us']:.3g}", f"{100 * row['spread']:.0f}", f"{row['linprog_us']:.4g}",
            f"{row['ratio']:.0f}", f"{6e7 / row['us']:.3g}", f"{row['unselectable']:.1%}",
            row["decisions"],
        )  # fmt: skip
    return table


def _accuracy_table(accuracy: dict) -> Table:
    table = _table(
        "Largest error relative to token size after 1 / 5 layers",
        "size", "against", *HEADINGS.values(),
    )  # fmt: skip
    for label, case in accuracy.items():
        cells = [
            " / ".join(f"{error:.0e}" for error in errors.values())
            if "absent" not in errors
            else "absent"
            for name in HEADINGS
            for errors in [case.get("errors", {}).get(name, {"absent": ""})]
        ]
        table.add_row(label, case["reference"], *cells)
    return table


def _start_table(start: dict) -> Table:
    table = _table("Whole processes: the main job, and imports", "what", "s", "target s")
    for name, one in start.items():
        label = f"python -m dynsim.run, {name}" if name in ("cold", "warm") else name
        took = "absent" if one["median"] is None else f"{one['median']:.2f}"
        table.add_row(label, took, f"{one['target']:g}" if one["target"] else "-")
    return table


def _absent(found: dict) -> list[str]:
    """One line for everything that is not in the tables, with its reason."""
    cases = [(case["name"], case["variants"]) for case in found["cases"]]
    for label, case in found.get("accuracy", {}).items():
        cases.append((label, case.get("errors", {"dynsim": case})))
    reasons: dict[tuple[str, str], list[str]] = {}
    for label, variants in cases:
        for name, variant in variants.items():
            if "absent" in variant:
                reasons.setdefault((HEADINGS[name], variant["absent"]), []).append(label)
    return [
        f"absent: {heading} in {', '.join(labels)}: {reason}"
        for (heading, reason), labels in reasons.items()
    ]


# --- figure -------------------------------------------------------------------------------------


def draw(found: dict) -> Figure:
    """Ratios by case, the best rival by name, the share of the roofline, and what calls take."""
    cases, calls = found["cases"][::-1], found.get("measures", {}).get("calls")
    widths = (3.0, 1.1, 2.2) if calls else (3.4, 1.2)
    with style.context():
        figure = Figure(
            figsize=(style.PAGE, 1.0 + 0.165 * max(len(cases), 10)), layout="constrained"
        )
        ratios, shares, *felt = figure.subplots(1, len(widths), width_ratios=widths)
        shares.sharey(ratios)
        _draw_ratios(ratios, cases)
        _draw_shares(shares, cases)
        for axes in felt:
            _draw_calls(axes, calls)
        style.letters(figure.axes)
        style.finding(figure, _headline(found))
    return figure


def _headline(found: dict) -> str:
    best = [min(_present(case).values()) for case in found["cases"] if _present(case)]
    ahead = sum(ratio > 1 for ratio in best)
    threads = found["settings"]["threads"]
    return (
        f"dynsim is ahead of every rival in {ahead} of {len(best)} cases "
        f"({threads} thread{'s' * (threads > 1)}, {found['date'][:10]})"
        + " (incomplete)"
        * (not found["complete"])
    )


def label(case: dict) -> str:
    """A case in words: the mask, tokens and dimensions, how many trajectories, float32 if it is.

    >>> label({"size": "N=8 d=4 B=4096 complete"})
    'complete 8 × 4, 4096 at once'
    >>> label({"size": "N=4096 d=64 B=1 local 8 float32"})
    'window 8, 4096 × 64, float32'
    """
    *size, last = case["size"].split()
    size, single = (size, ", float32") if last == "float32" else ([*size, last], "")
    n, d, batch, mask, *reach = (word.partition("=")[2] or word for word in size)
    names = {"local": "window", "random": "random, degree"}
    words = f"{names.get(mask, mask)} {reach[0]}," if reach else mask
    return f"{words} {n} × {d}" + (f", {batch} at once" if int(batch) > 1 else "") + single


def _draw_ratios(axes, cases):
    """Every rival a dot; the fastest of each case darker, and by name on the right."""
    for y, case in enumerate(cases):
        present = _present(case)
        if not present:
            continue
        best = min(present, key=present.get)
        others = [ratio for name, ratio in present.items() if name != best]
        axes.plot(others, [y] * len(others), "o", color="0.75", markersize=3)
        axes.plot(present[best], y, "o", color=style.BLUE, markersize=4, zorder=4)
        axes.annotate(
            f"{present[best]:.2f} {HEADINGS[best]}", (1.02, y), xycoords=("axes fraction", "data"),
            va="center", fontsize=6.5, color=style.BLUE, annotation_clip=False,
        )  # fmt: skip
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(
        xscale="log",
        xlabel="time of rival / time of dynsim",
        title="blue: the fastest rival",
        yticks=range(len(cases)),
        ylim=(-0.6, len(cases) - 0.4),
    )
    axes.set_yticklabels([label(case) for case in cases], fontsize=6.5)
    axes.xaxis.set_major_formatter("{x:g}")


def _draw_shares(axes, cases):
    axes.barh(range(len(cases)), [case["roofline"] for case in cases], height=0.55,
              color=style.BLUE)  # fmt: skip
    axes.axvline(1, color="black", linewidth=0.8)
    axes.tick_params(labelleft=False)
    axes.set(xlim=(0, 1.05), xlabel="least time / time", title="of roofline", xticks=(0, 0.5, 1))
    axes.grid(False, axis="y")


#: Calls that a user may make, by what they are called in a figure.
_CALLS = {
    "float32": ("float32", style.GREEN, "right"),
    "default": ("default", style.BLUE, "left"),
    "logscale": ("log-scale", style.VERMILION, "left"),
}


def _short(size: str) -> str:
    """A size of a call in words.

    >>> _short("N=8 d=4 B=4096 complete T=20")
    '8 × 4, 20 layers'
    """
    n, d, *_, layers = (word.partition("=")[2] for word in size.split())
    return f"{n} × {d}, {layers} layers"


def _draw_calls(axes, calls):
    """What calls take, in units of one that records cheap measures alone."""
    sizes = list(calls)[::-1]
    for name, (words, colour, side) in _CALLS.items():
        ratios = [calls[size]["ratios"][name] for size in sizes]
        axes.plot(ratios, range(len(sizes)), "o", color=colour, markersize=4)
        axes.annotate(
            words, (ratios[-1], len(sizes) - 1), xytext=(-3, 14 if name == "default" else 6),
            textcoords="offset points", ha=side, fontsize=7, color=colour,
        )  # fmt: skip
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(
        xscale="log",
        xlabel="time / that of\ncheap measures",
        title="what calls take",
        yticks=range(len(sizes)),
        ylim=(-0.6, len(sizes) + 0.2),
        xlim=(0.2, 8),
    )
    axes.set_yticklabels([_short(size) for size in sizes], fontsize=6.5)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xticks([0.5, 1, 2, 5])
