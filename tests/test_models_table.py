"""The table of verified models in dynsim/models/README.md is what a run gives."""

import os

import pytest

pytest.importorskip("transformers")

import verified_models as verified


@pytest.mark.parametrize("name", verified.CASES)
def test_the_row_of_a_model_is_what_a_run_gives(name):
    cells = verified.row(name)
    if os.environ.get("DYNSIM_WRITE"):
        verified.write({name: cells})
    assert verified.read()[name] == cells


def test_the_table_has_no_other_rows():
    assert list(verified.read()) == list(verified.CASES)


def test_a_part_that_is_not_changed_is_noticed(monkeypatch):
    """Every column fails for a model of which that part does not work."""
    case = verified.CASES["BERT"]()
    states = type(case).states
    monkeypatch.setattr(
        verified.Case, "states", lambda self, change=None, inputs=None: states(self, None, inputs)
    )
    for name in ("mask", "norm off", "skip off", "MLP off"):
        with pytest.raises(AssertionError):
            verified.COLUMNS[name](case)
    monkeypatch.setattr(
        verified.Case, "states", lambda self, *given: [2 * x for x in states(self, *given)]
    )
    for name in ("points", "conversion"):
        with pytest.raises(AssertionError):
            verified.COLUMNS[name](case)
