"""``python -m experiments report``: every figure and table of the papers and ours, judged anew.

Claims are judged from the data that lie in the folder, not copied from an earlier verdict; the
settings, seed, runtime and commit come from the sidecars beside them. An item of a paper that no
experiment shows is listed with the reason.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dynsim.results import written_whole
from experiments.record import Verdict, judged, read, read_data, sidecar_of

__all__ = ["ITEMS", "PAPERS", "Item", "page", "write"]


class Item(NamedTuple):
    """A figure, table or theorem of a paper: what it shows, and which experiments show it here.

    instead : what stands in for it, or why it cannot be tested here
    about : only claims whose words about the paper hold this, of experiments with several
    storms : of `soundness.json`, which try a theorem in place of a figure
    """

    name: str
    shows: str
    experiments: tuple[str, ...] = ()
    instead: str = ""
    about: str = ""
    storms: tuple[str, ...] = ()


#: By short name: authors, title and number.
PAPERS = {
    "WU": "Wu et al., *On the role of attention masks and LayerNorm in transformers*, "
    "arXiv 2405.18781",
    "BRODY": "Brody, Alon and Yahav, *On the expressivity role of LayerNorm in transformers' "
    "attention*, arXiv 2305.02582",
    "RIECHERS": "Riechers, *Geometry and dynamics of LayerNorm*, arXiv 2405.04134",
    "GUPTA": "Gupta et al., *Geometric interpretation of layer normalization and a comparative "
    "analysis with RMSNorm*, arXiv 2409.12951",
}

ITEMS: dict[str, tuple[Item, ...]] = {
    "WU": (
        Item("Fig. 1", "two tokens in the plane, without LayerNorm and with it",
             ("two_token_circle", "two_token_basins")),
        Item("Fig. 2 and 6", "mu by layer: five variants under four masks, pretrained and "
             "initialised", ("masks_and_layernorm",)),
        Item("Fig. 3 and 7", "a smaller temperature term slows the first drop of mu",
             ("temperature_of_attention",)),
        Item("Fig. 4", "rank, smallest singular value and cosines by layer of real models",
             ("spectra_of_real_models",),
             "trained bert-base-uncased, gpt2, t5-base and albert-base-v2 cannot be had offline: "
             "they are measured as initialised, and trained where they lie in the cache",
             "Fig. 4"),
        Item("Fig. 5", "four invariant arcs of token 2, and where each leads", ("two_token_arcs",)),
        Item("Fig. 8", "all singular values by layer", ("spectra_of_real_models",), "", "Fig. 8"),
        Item("Fig. 9", "cosines of the embeddings", ("spectra_of_real_models",), "", "Fig. 9"),
        Item("Theorem 1, section 4.1", "collapse under every quasi-strongly connected mask, and "
             "its rate by the radius", ("radius_does_not_order_rates",), "", "", ("bounds",)),
        Item("Theorem 2, Corollary 1", "collapse with LayerNorm and orthogonal W_V", (),
             "theorems, drawn in [theory](theory.png)", "", ("bounds", "late_rates")),
        Item("Theorem 3, App. F", "equilibria of every rank; a set of starts of positive measure "
             "keeps its rank", ("jordan_family", "jordan_starts", "bifurcations",
                                "stable_every_rank")),
        Item("App. F.4", "undirected masks: an open question", ("stable_full_rank",)),
    ),
    "BRODY": (
        Item("Fig. 1a, b", "keys and queries of the majority task in three dimensions",
             ("majority_keys_and_queries",)),
        Item("Fig. 1c, d", "how often random keys hold an unselectable one",
             ("unselectable_keys",), "", "", ("selectability", "expected_counts")),
        Item("Fig. 2 and 3", "the majority task with and without projection", ("majority_task",)),
        Item("Fig. 4", "loss of language models with and without scaling",
             ("unselectable_in_language_models",),
             "Wikipedia and 50,000 steps of 16 x 1024 word pieces are out of reach: characters of "
             "real text, at two rates", "Fig. 4"),
        Item("Tables 1 and 2", "unselectable keys by layer, before and after the norm",
             ("unselectable_in_language_models", "unselectable_in_real_models"), "",
             "Tables 1 and 2"),
        Item("Table 3", "unselectable keys on short texts (SST-2)",
             ("unselectable_in_language_models",),
             "the data set cannot be had offline, and the printed numbers are not known to us: "
             "short texts of our own", "Table 3"),
        Item("Table 4", "unselectable keys of a BERT without LayerNorm, trained as a classifier",
             ("unselectable_in_a_classifier",),
             "SST-2 cannot be had offline, and the printed numbers are not known to us: source "
             "code against prose"),
    ),
    "RIECHERS": (
        Item("the closed expression", "LayerNorm as projection, scaling, gains and bias",
             ("layernorm_ellipsoid",)),
        Item("the ellipsoid", "the image of LayerNorm, its principal axes, and gains of zero",
             ("layernorm_ellipsoid",), "", "", ("ellipsoid",)),
    ),
    "GUPTA": (
        Item("three steps, irreversibility", "LayerNorm cannot be undone", (),
             "an identity, proved: `python -m theory show irreversible`", "", ("ellipsoid",)),
        Item("angle to 1, norms, rotation by layer", "in models with LayerNorm and with RMSNorm",
             ("orthogonality_in_real_models", "layernorm_and_rmsnorm_twins",
              "layernorm_ellipsoid"),
             "GPT-2 XL, GPT-Neo 1.3B, Pythia 1.4B and 6.9B, GPT-J, Llama-2-7B and Llama-3-8B on a "
             "million tokens cannot be had offline: MiniLM, SmolLM2 and models trained here"),
    ),
}  # fmt: skip

#: Figures of the command line, by the command that draws them.
COMMANDS = {
    "main_job": "python -m dynsim.run --mask local --ln on --depth 200",
    "compare_masks": "python -m dynsim.run --compare mask=causal,local --ln on --value orthogonal",
    "theory": "python -m dynsim.run --mask causal --ln on --value orthogonal --scores zero "
    "--depth 60 --tokens 32 --dim 48 --theory",
    "real_text": "python -m dynsim.run --text LICENSE --tokens 32 --weights minilm:0 --skip 1 "
    "--ln on --depth 24",
}
#: Characters of a measured number that a table shows.
_SHOWN = 160


def write(known, folder: Path) -> Path:
    """README.md of the folder."""
    path = folder / "README.md"
    with written_whole(path) as temporary:
        temporary.write_text(page(known, folder))
    return path


def page(known, folder: Path) -> str:
    """The gallery: a table of every paper's items, then every experiment with its figure."""
    found = {name: _results(name, known[name], folder) for name in known}
    storms = (read(folder / "soundness.json") or {"storms": {}})["storms"]
    shown = {name for items in ITEMS.values() for item in items for name in item.experiments}
    parts = [
        "# Gallery",
        "Written by `python -m experiments report` from the data beside it. Every claim is judged "
        "anew from the data; the paper's number and ours stand apart. "
        f"{_count(found)} All of it again: `python -m experiments all` ({_total(found)}).",
        *(
            f"## {short}: {words}\n\n{_of_items(ITEMS[short], found, storms)}"
            for short, words in PAPERS.items()
        ),
        _of_ours([name for name in known if name not in shown], known, found),
        _of_commands(folder),
        _of_soundness(storms),
        "## Every experiment",
        *(_section(name, known[name], found[name], folder) for name in known),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


class _Results(NamedTuple):
    """What lies in the folder: sidecar and verdicts, none where it was not run."""

    sidecar: dict
    verdicts: list[Verdict]


def _results(name: str, experiment, folder: Path) -> _Results | None:
    sidecar = read(sidecar_of(folder, name))
    if sidecar is None or not (folder / f"{name}.npz").exists():
        return None
    return _Results(sidecar, judged(experiment, read_data(folder, name)))


def _count(found) -> str:
    verdicts = [verdict for one in found.values() if one for verdict in one.verdicts]
    outcomes: dict[str, int] = {}
    for verdict in verdicts:
        word = verdict.outcome.split(" with")[0]
        outcomes[word] = outcomes.get(word, 0) + 1
    words = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    return f"{len(verdicts)} claims: {words}."


def _total(found) -> str:
    wall = sum(one.sidecar["runtime_s"] for one in found.values() if one)
    return f"recorded runtimes, one after another: {wall / 60:.0f} minutes"


def _of_items(items, found, storms) -> str:
    lines = ["| item | what it shows | here | verdict |", "|---|---|---|---|"]
    for item in items:
        links = ", ".join(f"[{name}](#{name})" for name in item.experiments)
        tried = ", ".join(f"[soundness {name}](#soundness)" for name in item.storms)
        here = "; ".join(part for part in (links, tried, item.instead) if part)
        lines.append(f"| {item.name} | {item.shows} | {here} | {_verdict(item, found, storms)} |")
    return "\n".join(lines)


def _verdict(item: Item, found, storms) -> str:
    """What the experiments and storms of an item say together."""
    run = [name for name in item.experiments if found.get(name)]
    verdicts = [v for name in run for v in found[name].verdicts if item.about in v.paper]
    words = [_tally(verdicts)] if verdicts else []
    words += [f"not run yet: {name}" for name in item.experiments if name not in run]
    words += [
        f"{storms[name]['violated']} of {storms[name]['systems']:,} systems violate it"
        for name in item.storms if name in storms
    ]  # fmt: skip
    return "; ".join(words) or "not testable here"


def _tally(verdicts: list[Verdict]) -> str:
    outcomes = list(dict.fromkeys(outcome(verdict) for verdict in verdicts))
    if len(verdicts) == 1:
        return outcomes[0]
    numbers = [sum(outcome(v) == one for v in verdicts) for one in outcomes]
    return "; ".join(f"{n} {one}" for n, one in zip(numbers, outcomes, strict=True))


def outcome(verdict: Verdict) -> str:
    """In words; of a claim of several parts, those that hold and those that do not."""
    parts = verdict.measured.get("shown")
    if not isinstance(parts, dict) or verdict.reproduced:
        return verdict.outcome
    words = (f"{part}: {'yes' if holds else 'no'}" for part, holds in parts.items())
    return f"{verdict.outcome} ({'; '.join(words)})"


def _of_ours(names, known, found) -> str:
    lines = ["| experiment | question | verdict |", "|---|---|---|"]
    for name in names:
        words = _tally(found[name].verdicts) if found[name] else "not run yet"
        lines.append(f"| [{name}](#{name}) | {_cell(known[name].PAPER)} | {words} |")
    return "## Ours, and other papers\n\n" + "\n".join(lines)


def _section(name: str, experiment, results: _Results | None, folder: Path) -> str:
    head = f"### {name}\n\n{experiment.PAPER}"
    if results is None:
        return f"{head}\n\nNot run yet: `python -m experiments run {name}`."
    claims = ["| claim | paper | ours | verdict |", "|---|---|---|---|"]
    claims += [
        f"| {_cell(v.statement)} | {_cell(v.paper)} | {_cell(measured(v))} | **{outcome(v)}** |"
        for v in results.verdicts
    ]
    sidecar = results.sidecar
    settings = {key: value for key, value in sidecar["settings"].items() if key != "name"}
    made = (
        f"`python -m experiments run {name} --settings {sidecar['settings']['name']} "
        f"--seed {sidecar['seed']}`: {sidecar['runtime_s']:.0f} s, commit "
        f"{sidecar['commit']}; settings `{_short(json.dumps(settings), 400)}`"
    )
    picture = f"![{name}]({name}.png)" if (folder / f"{name}.png").exists() else ""
    return "\n\n".join(part for part in (head, "\n".join(claims), picture, made) if part)


def measured(verdict: Verdict) -> str:
    """The first few numbers of a verdict, as many as a table has room for."""
    words = list(_leaves(verdict.measured))
    shown = _short(words[0], _SHOWN) if words else ""
    for word in words[1:]:
        if len(shown) + len(word) > _SHOWN:
            return f"{shown}; ..."
        shown += f"; {word}"
    return shown


def _leaves(value, name: str = ""):
    """Words for every number of nested dictionaries."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}, {key}" if name else str(key))
    else:
        yield f"{name}: {_number(value)}"


def _number(value) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_number(one) for one in value) + "]"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    return "yes" if value is True else "no" if value is False else str(value)


def _short(words: str, most: int) -> str:
    if len(words) <= most:
        return words
    cut = words[:most]
    stop = max(cut.rfind("; "), cut.rfind(", "))
    return (cut[:stop] if stop > most // 2 else cut) + " ..."


def _cell(words: str) -> str:
    """Words that a cell of a table holds: a bar would end it."""
    return " ".join(words.split()).replace("|", "\\|")


def _of_commands(folder: Path) -> str:
    lines = ["| figure | command | verdict |", "|---|---|---|"]
    for name, command in COMMANDS.items():
        data = read(folder / f"{name}.json")
        if data is None:
            continue
        verdict = data["verdict"]
        sentence = verdict.get("sentence") or "; ".join(f"{k}: {v}" for k, v in verdict.items())
        lines.append(f"| [{name}]({name}.png) | `{command}` | {_cell(sentence)} |")
    return "## From the command line\n\n" + "\n".join(lines) if len(lines) > 2 else ""


def _of_soundness(storms) -> str:
    if not storms:
        return ""
    lines = ["| what must never happen | systems | violated | referee |", "|---|---|---|---|"]
    lines += [
        f"| {name}: {_cell(storm['statement'])} | {storm['systems']:,} | {storm['violated']} "
        f"| {_cell(storm['referee'])} |"
        for name, storm in storms.items()
    ]
    head = (
        "## Soundness\n\n`python -m experiments soundness --share 1` tries every proof, bound and "
        "exact claim against referees that share no code with it:"
    )
    return "\n\n".join([head, "\n".join(lines)])
