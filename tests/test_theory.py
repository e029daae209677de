import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy

from dynsim import measures
from theory import lemmas
from theory.__main__ import main
from theory.lemma import Proof

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", lemmas())
def test_every_lemma_holds_and_shows_its_steps(name, capsys):
    assert main(["show", name]) == 0
    shown = capsys.readouterr().out
    assert "source" in shown
    assert shown.rstrip().endswith("holds")


def test_a_false_claim_fails():
    proof = Proof()
    assert not proof.holds  # no steps prove nothing
    x = sympy.Symbol("x")
    proof.zero("true", (x + 1) ** 2 - x**2 - 2 * x - 1)
    assert proof.holds
    proof.zero("false", (x + 1) ** 2 - x**2 - 1)
    assert not proof.holds


def test_the_table_lists_all_and_unknown_names_are_refused(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in lemmas())
    assert main(["show", "nothing"]) == 2
    assert "mu-pairwise" in capsys.readouterr().err


def test_the_table_fits_a_pipe():
    command = [sys.executable, "-m", "theory"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert all(name in done.stdout for name in lemmas())
    assert "FAILS" not in done.stdout


def test_the_pairwise_formula_gives_dynsims_mu(rng):
    X = rng.standard_normal((6, 3))
    pairs = sum(np.sum((a - b) ** 2) for a in X for b in X)
    assert measures.mu(X) == pytest.approx(np.sqrt(pairs / 12), rel=1e-14)
