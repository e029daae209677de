"""The parts that a dynamics may have: the tables in dynsim/network/README.md, tried and written.

A row's formula and source are those of the docstring; engines are those that give what the
definition gives; what it voids is what refuses it by name. To write the file anew:

    DYNSIM_WRITE=1 python -m pytest tests/test_parts_table.py

Another registry joins by an entry in `TABLES`.
"""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from dynsim import AttentionDynamics, jacobian, masks, norms, tokens
from dynsim.collapse.bounds import mu_bounds
from dynsim.collapse.gram import infinite_width
from dynsim.collapse.predictions import cubic_step, predict, transversal_growth
from dynsim.engines import ENGINES, make_engine
from dynsim.equilibria.certify import certify
from dynsim.equilibria.continuation import FAMILIES
from dynsim.equilibria.lyapunov import spectrum, transversal
from dynsim.equilibria.stability import check_equilibria_possible
from dynsim.network.attention import ATTENTION, QK_NORMS
from dynsim.network.gates import FixedGate, GateWeights, GaussianGate
from dynsim.network.positions import POSITIONS
from dynsim.network.residual import MIXES, PLACEMENTS, SKIPS, by_layer
from dynsim.network.schedules import SCHEDULES
from dynsim.network.weights import Orthogonal, Sharpened, Weights

README = Path(__file__).parents[1] / "dynsim" / "network" / "README.md"
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->"

PLAIN = AttentionDynamics(masks.causal(4), Weights(value=Orthogonal(), shared=True), norms.Unit())
X = tokens.sphere(2, 4, 4)

#: What is computed of a dynamics from a theory, by the words of its errors.
PURPOSES = {
    "a late rate": lambda d: predict(d, X),
    "the growth of deviations": lambda d: transversal_growth(d, X[0, 0], 3),
    "the cubic law": lambda d: cubic_step(replace(d, mask=masks.complete(4)), X[0], X[0, 0]),
    "a proved bound": lambda d: mu_bounds(d, X, 2),
    "infinite width": lambda d: infinite_width(replace(d, weights=Weights()), X, 2),
    "a certificate of an equilibrium": lambda d: certify(d, X[0]),
    "the transversal exponent": lambda d: transversal(d, X[0, 0], layers=20),
    "beta as a parameter": lambda d: FAMILIES["beta"](d, 4, 2.0),
    "Lyapunov exponents": lambda d: spectrum(d, X[0], layers=5, discard=2, count=2),
    "an equilibrium": check_equilibria_possible,
    "the derivative of a layer": lambda d: jacobian.jacobian(d, X[0]),
}


class Table(NamedTuple):
    """One registry: `rows` are (name on the command line, its entry, fields of the dynamics)."""

    title: str
    rows: list[tuple[str, Any, dict[str, Any]]]


def placed(places):
    """The formula of a sub-layer with norms at these places."""
    seen = "norm(x)" if "before" in places else "x"
    branch = f"norm(f({seen}))" if "branch" in places else f"f({seen})"
    whole = f"s x + b {branch}"
    return SimpleNamespace(__doc__=f"x' = norm({whole})" if "after" in places else f"x' = {whole}")


GATE = GateWeights(np.linspace(-1.0, 1.0, 16).reshape(1, 4, 4), np.full((1, 4), 0.2))

TABLES = [
    Table("Positions: `position=`, `--position`", [
        ("alibi[:SLOPES]", POSITIONS["alibi"], {"position": POSITIONS["alibi"](0.5)}),
        ("rope[:BASE]", POSITIONS["rope"], {"position": POSITIONS["rope"]()}),
        ("decay:RATE", POSITIONS["decay"], {"position": POSITIONS["decay"](0.5)}),
        ("power:POWER", POSITIONS["power"], {"position": POSITIONS["power"](1.0)}),
    ]),
    Table("Kinds of attention: `kind=`, `--attention`, `--sink`", [
        ("softmax", ATTENTION["softmax"], {"kind": ATTENTION["softmax"]()}),
        ("softmax:SINK", ATTENTION["softmax"], {"kind": ATTENTION["softmax"](0.3)}),
        ("sigmoid", ATTENTION["sigmoid"], {"kind": ATTENTION["sigmoid"]()}),
        ("softpick[:EPS]", ATTENTION["softpick"], {"kind": ATTENTION["softpick"]()}),
        ("hardmax", ATTENTION["hardmax"], {"kind": ATTENTION["hardmax"]()}),
    ]),
    Table("Norms of queries and keys: `qk_norm=`, `--qk-norm`", [
        (f"{name}[:GAIN]", QK_NORMS[name], {"qk_norm": QK_NORMS[name](2.0)})
        for name in ("unit", "rms")
    ]),
    Table("Inverse temperature by layer: `weights.Sharpened(..., beta)`, `--beta`", [
        ("linear:FIRST:LAST[:LAYERS]", SCHEDULES["linear"],
         {"weights": Sharpened(PLAIN.weights, SCHEDULES["linear"](1.0, 2.0, 3))}),
        ("list:A,B,...", SCHEDULES["list"],
         {"weights": Sharpened(PLAIN.weights, SCHEDULES["list"]((1.0, 0.5, 2.0)))}),
    ]),
    Table("Norms: `norm=`, `--norm`, `--ln-scaling`", [
        *((name, norms.NORMS[name], {"norm": norms.NORMS[name]()})
          for name in ("none", "unit", "rms", "layernorm")),
        ("dyt[:A][:GAIN][:BIAS]", norms.DyT, {"norm": norms.DyT()}),
        ("derf[:A][:S][:GAIN][:BIAS]", norms.Derf, {"norm": norms.Derf()}),
        ("--ln-scaling", norms.ln_scaling, {"norm": norms.ln_scaling(norms.RMSNorm(), 3)}),
    ]),
    Table("Placements, with weights s of the skip connection and b of the branch: `placement=`, "
          "`--placement`", [
        *((name, placed(places), {"placement": name}) for name, places in PLACEMENTS.items()),
        ("mix-ln[:SHARE]", MIXES["mix-ln"], {"placement": MIXES["mix-ln"](0.5, layers=3)}),
    ]),
    Table("Weights of skip and branch: `skip=`, `--skip`", [
        ("deepnorm", SKIPS["deepnorm"], {"skip": SKIPS["deepnorm"](3)}),
        ("layerscale[:SCALE]", SKIPS["layerscale"], {"skip": SKIPS["layerscale"](0.3)}),
        ("layerscale:A,B,...", SKIPS["layerscale"],
         {"skip": SKIPS["layerscale"](np.array([0.1, 0.2, 0.3, 0.4]))}),
        ("lerp[:ALPHA]", SKIPS["lerp"], {"skip": SKIPS["lerp"](0.3)}),
        ("depth-scaled", SKIPS["depth-scaled"], {"skip": SKIPS["depth-scaled"](3)}),
        ("A,B,...", by_layer, {"skip": by_layer([1.0, 0.5, 0.2])}),
    ]),
    Table("Gates: `gate=`, `--gate`", [
        ("gaussian[:SIGMA][:BIAS]", GaussianGate, {"gate": GaussianGate(shared=True)}),
        ("headwise[:SIGMA][:BIAS]", GaussianGate, {"gate": GaussianGate(1.0, 0.0, True, True)}),
        ("gates.FixedGate", FixedGate, {"gate": FixedGate(GATE)}),
    ]),
]  # fmt: skip

HEAD = ("part", "formula", "source", "engines", "refused for")


def row(name, entry, fields):
    """The cells of a part."""
    dynamics = replace(PLAIN, **fields)
    paragraph = " ".join((entry.__doc__ or "").split("\n\n")[0].split())
    papers = dict.fromkeys(re.findall(r"arXiv \d+\.\d+|GPT-OSS|Qwen3", entry.__doc__ or ""))
    formula = re.sub(r" \((arXiv|GPT-OSS|Qwen3)[^)]*\)", "", paragraph).rstrip(".")
    cells = [f"`{name}`", formula, ", ".join(papers), ", ".join(engines(dynamics)),
             ", ".join(refused(dynamics)) or "nothing"]  # fmt: skip
    return [cell.replace("|", "\\|") for cell in cells]


def engines(dynamics):
    """Those that give the states of the definition; others must say that they do not apply."""
    exact = X
    if dynamics.skip == PLAIN.skip:  # softpick may leave nothing of a token
        dynamics = replace(dynamics, skip=1.0)
    for t in range(3):
        exact = np.stack([dynamics.step(x, t) for x in exact])
    for name in ENGINES:
        try:
            engine = make_engine(name, dynamics, 1)
        except ValueError as error:
            if f"the {name} engine does not apply" not in str(error):
                raise
            continue
        found = engine.tokens(engine.advance(engine.begin(X), 0, 3)[0])
        assert np.allclose(found, exact, rtol=1e-11, atol=1e-12)
        yield name


def refused(dynamics):
    """What names the part that it is not known for."""
    for purpose, compute in PURPOSES.items():
        try:
            compute(dynamics)
        except ValueError as error:
            if ": not known with " in str(error):
                yield purpose
        except FloatingPointError:  # softpick leaves nothing of a token: not a refusal
            continue


def written():
    """The tables as the file has them."""
    lines = []
    for table in TABLES:
        rows = [row(*given) for given in table.rows]
        lines += [f"### {table.title}", "", "| " + " | ".join(HEAD) + " |", "|---" * 5 + "|"]
        lines += ["| " + " | ".join(cells) + " |" for cells in rows]
        lines.append("")
    return "\n".join(lines)


def read():
    """The tables in the file."""
    return README.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


def write(tables):
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    README.write_text(before + BEGIN + tables + END + rest.split(END)[1], encoding="utf-8")
