"""Collapse: how fast mu, the distance to consensus, falls: measured, predicted and bounded.

Public: `rates.collapse_rate` fits laws to a trajectory; `predictions.predict` linearises across
consensus, and `transient` has the largest power of what comes out; `gram.infinite_width` is the
limit of random networks; `influence`, `critical`, `speeds` and `sensitivity` predict the influence
of positions, the scale of scores, late speeds by placement of the norm, and gradients;
`bounds.mu_bounds` proves bounds (by `contraction`, on `enclosures` of the run), `score_bounds` has
those that a bound of the scores gives; `comparison.compare_with_theory` lays these beside what was
measured; `verdicts.verdict` says in one sentence what became of the samples.
"""
