"""Collapse: how fast mu falls, as fitted, as predicted and as bounded, and the verdict.

`rates` fits laws to a trajectory, `predictions` linearises across consensus, `certificates` proves
bounds (`contraction` on `enclosures` of the run), `expectations` lays all of it beside what was
measured, and `verdicts` says in one sentence what became of the samples.
"""
