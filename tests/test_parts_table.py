"""The tables of dynsim/network/README.md are what code writes."""

import os

import parts_table


def test_the_tables_are_what_a_run_gives():
    tables = parts_table.written()
    if os.environ.get("DYNSIM_WRITE"):
        parts_table.write(tables)
    assert parts_table.read() == tables


def test_a_part_that_an_engine_leaves_out_is_noticed(monkeypatch):
    """Every engine's column fails where the definition has something else."""
    monkeypatch.setattr(parts_table.POSITIONS["alibi"], "bias", lambda self, n, heads: None)
    name, _, fields = parts_table.TABLES[0].rows[0]
    assert name.startswith("alibi")
    try:
        found = list(parts_table.engines(parts_table.replace(parts_table.PLAIN, **fields)))
    except AssertionError:
        return
    raise AssertionError(f"not noticed by {found}")
