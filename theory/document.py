r"""All lemmas as one LaTeX document, with the steps as sympy decided them."""

from __future__ import annotations

from theory.lemma import Lemma, Step
from theory.runner import Result

__all__ = ["document"]

HEAD = r"""\documentclass{article}
\usepackage{amsmath,amssymb}
\usepackage[margin=2.5cm]{geometry}
\allowdisplaybreaks
\setcounter{MaxMatrixCols}{20}
\title{Lemmas of dynsim, checked with sympy}
\date{}
\begin{document}
\maketitle
"""

#: Characters that LaTeX would take for commands in running text.
SPECIAL = {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "*": r"\textasteriskcentered{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}  # fmt: skip


def document(lemmas: dict[str, Lemma], results: dict[str, Result]) -> str:
    """A complete LaTeX article (amsmath): statement, hypotheses and steps of every lemma."""
    parts = [_section(lemma, results[name]) for name, lemma in lemmas.items()]
    return HEAD + "\n".join(parts) + "\\end{document}\n"


def _section(lemma: Lemma, result: Result) -> str:
    said = lemma.statement()
    verdict = "holds" if result.holds else "fails"
    return "\n".join(
        [
            rf"\section{{{_text(lemma.name)}}}",
            rf"{_text(said.claim)}. \emph{{{_text(said.source)}.}}",
            rf"\[ {said.latex} \]",
            rf"Hypotheses: {_text(said.hypotheses)}. How: {_text(said.how)}. Verdict: {verdict}.",
            r"\begin{enumerate}",
            *map(_item, result.proof.steps),
            r"\end{enumerate}",
            "",
        ]
    )


def _item(step: Step) -> str:
    item = rf"\item {_text(step.reason)}" + (" (in words)" if step.holds is None else "")
    if not step.latex:
        return item
    return item + rf" \[ {step.latex} \]"


def _text(words: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in words)
