r"""Lemmas as LaTeX: each a theorem with its claim typeset, and a proof with its check's steps."""

from __future__ import annotations

import re

from theory.lemma import Lemma, Step
from theory.runner import Result

__all__ = ["document", "section"]

HEAD = r"""\documentclass{article}
\usepackage{amsmath,amssymb,amsthm}
\usepackage{adjustbox}
\usepackage[margin=2.5cm]{geometry}
\setcounter{MaxMatrixCols}{20}
\newtheorem{lemma}{Lemma}
\newtheorem{counterexample}[lemma]{Counterexample}
\title{Lemmas of dynsim, checked with sympy}
\date{}
\begin{document}
\maketitle
"""

#: A formula wider than a line is made smaller, never left out.
FIT = r"\begin{adjustbox}{max width=\linewidth}"

#: Characters that LaTeX would take for commands in running text.
SPECIAL = {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": "$<$", ">": "$>$", "|": "$|$", "*": "$*$",
    **{c: "\\" + c for c in "&%$#_{}"},
}  # fmt: skip

#: What words of ASCII mathematics are in LaTeX, the longer ones first.
SYMBOLS = {
    "<=": r"\le", ">=": r"\ge", "=>": r"\Rightarrow", "->": r"\to", "+-": r"\pm", "||": r"\|",
    "...": r"\dots",
}  # fmt: skip
GREEK = (
    "alpha|beta|delta|eps|gamma|kappa|lambda|mu|nu|omega|phi|psi|rho|sigma|tau|theta|zeta|Pi|Phi"
)
WORD = re.compile(
    "|".join(map(re.escape, SYMBOLS))
    + rf"|\b(?:{GREEK})(?![A-Za-z])(?:[_^](?:\{{[^}}]*\}}|-?\w+))*"
    + r"|\b[A-Za-z](?:[_^](?:\{[^}]*\}|-?\w+))+"
)


def document(lemmas: dict[str, Lemma], results: dict[str, Result]) -> str:
    """A complete LaTeX article (amsmath, amsthm, adjustbox) of `section` for every lemma."""
    parts = [section(lemma, results[name]) for name, lemma in lemmas.items()]
    return HEAD + "\n".join(parts) + "\\end{document}\n"


def section(lemma: Lemma, result: Result) -> str:
    """The claim in a theorem environment; hypotheses, how, and every step in a proof."""
    said = lemma.statement()
    kind = "counterexample" if said.how.startswith("counterexample") else "lemma"
    verdict = "holds" if result.holds else "fails"
    return "\n".join(
        [
            rf"\begin{{{kind}}}[{{{_escaped(lemma.name)}; {_text(said.source)}}}]",
            rf"\label{{{lemma.name}}}",
            _display(said.latex),
            rf"Hypotheses: {_text(said.hypotheses)}.",
            rf"\end{{{kind}}}",
            r"\begin{proof}",
            rf"How: {_text(said.how)}. Verdict: {verdict}.",
            r"\begin{enumerate}",
            *map(_item, result.proof.steps),
            r"\end{enumerate}",
            r"\end{proof}",
            "",
        ]
    )


def _item(step: Step) -> str:
    item = rf"\item {_text(step.reason)}" + (" (in words)" if step.holds is None else "")
    return item + ("\n" + _display(step.latex) if step.latex else "")


def _display(formula: str) -> str:
    return rf"\[ {FIT}$\displaystyle {formula} $\end{{adjustbox}} \]"


def _text(words: str) -> str:
    """Running text in which symbols, Greek letters and names with an index are set as formulas."""
    parts, end = [], 0
    for match in WORD.finditer(words):
        parts += [_escaped(words[end : match.start()]), f"${_symbol(match.group())}$"]
        end = match.end()
    return "".join(parts) + _escaped(words[end:])


def _symbol(word: str) -> str:
    if word in SYMBOLS:
        return SYMBOLS[word]
    word = re.sub(r"([_^])(-?\w+)", r"\1{\2}", word)
    word = re.sub(r"\beps\b", "varepsilon", word)
    return re.sub(rf"(?<!\\)\b({GREEK}|varepsilon)(?![A-Za-z])", r"\\\1", word)


def _escaped(words: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in words)
