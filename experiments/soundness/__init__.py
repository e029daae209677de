"""Storms: whatever dynsim calls proved, certified, exact or a bound, tried on random and hostile
input against referees that share no code with it. ``python -m experiments soundness``.

A storm is a module of this package with

    STATEMENT   what must never fail, in one sentence
    REFEREE     who knows the truth: mpmath, exact rationals, brute force
    SYSTEMS     how many are tried by default; the tests try a few
    trial(rng) -> Outcome   one system, drawn from a numpy Generator; the same for the same bits

and is found by being there. Storms use the public names of dynsim only.
"""
