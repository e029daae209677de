"""The command line: strings to objects, one file per command."""

#: Every command: its module in this package, and what it does.
COMMANDS = {
    "run": "simulate, draw the rank trajectory and judge it (the main job)",
    "sweep": "simulate over many settings, into one store",
    "plot": "the phase diagram of a sweep",
    "probe": "measure a real model layer by layer: does it collapse, and what if",
    "equilibria": "find the equilibria of every rank and tell which are stable",
    "design": "weights that make tokens an equilibrium, or that have a stable one",
    "continuation": "follow equilibria while a parameter changes: folds, flips, stability",
    "basins": "where random starts end, and in what shares",
    "lyapunov": "Lyapunov exponents: order, rotation or chaos",
    "geometry": "LayerNorm's ellipsoid, and what it does to tokens",
    "presets": "what --preset NAME sets, model by model",
    "verify": "check certificates of equilibria again",
    "tour": "seven screens for a newcomer: commands, pictures, three sentences each",
}
