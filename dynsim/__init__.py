"""dynsim: does this attention architecture collapse, how fast, to what, and what stops it?

Self-attention, iterated, is a dynamical system on tokens: X' = Norm(A(X) X W_V). A mask graph,
weights and a norm make a dynamics; a dynamics and tokens make a trajectory; measures read it.

>>> import dynsim
>>> dynamics = dynsim.AttentionDynamics(
...     mask=dynsim.masks.local(16, window=1),
...     weights=dynsim.weights.Weights(value=dynsim.weights.Orthogonal(), seed=1),
...     norm=dynsim.norms.Unit(),
... )
>>> x0 = dynsim.tokens.sphere(samples=4, n=16, d=8, seed=1)
>>> trajectory = dynsim.simulate(dynamics, x0, depth=50)
>>> trajectory["mu"].shape
(4, 51)
>>> dynsim.connectivity.radius(dynamics.mask)
8.0
>>> print(dynsim.verdict(trajectory).kind)
collapsing
"""

from importlib import import_module
from typing import Any

from dynsim._version import __version__

#: Where each public name lives. Names and rooms are imported when first used: nothing is loaded,
#: and nothing compiled, by ``import dynsim``.
_NAMES = {
    "AttentionDynamics": "network.dynamics",
    "Dropout": "network.dropout",
    "Overflow": "simulation",
    "Record": "simulation",
    "Stopped": "simulation",
    "Trajectory": "results.trajectory",
    "collapse_rate": "collapse.rates",
    "compare_with_theory": "collapse.comparison",
    "load": "results.trajectory",
    "measure": "models.probing",
    "predict": "collapse.predictions",
    "probe": "models.probing",
    "report": "reports.report",
    "set_threads": "_threads",
    "simulate": "simulation",
    "sweep": "sweeps.sweep",
    "trace": "models.tracing",
    "verdict": "collapse.verdicts",
}
#: And the modules and rooms, by the name under which they are public.
_ROOMS = {
    "attention": "network.attention",
    "basins": "equilibria.basins",
    "bounds": "collapse.bounds",
    "comparison": "collapse.comparison",
    "connectivity": "masks.connectivity",
    "continuation": "equilibria.continuation",
    "critical": "collapse.critical",
    "deviation": "network.deviation",
    "engines": "engines",
    "equilibria": "equilibria",
    "gaussian_keys": "geometry.gaussian_keys",
    "gates": "network.gates",
    "geometry": "geometry",
    "gram": "collapse.gram",
    "influence": "collapse.influence",
    "jacobian": "network.jacobian",
    "lyapunov": "equilibria.lyapunov",
    "masks": "masks",
    "measures": "measures",
    "minilm": "models.minilm",
    "models": "models",
    "mlp": "network.mlp",
    "norms": "network.norms",
    "plots": "results.plots",
    "positions": "network.positions",
    "predictions": "collapse.predictions",
    "rates": "collapse.rates",
    "residual": "network.residual",
    "reports": "reports",
    "rounding": "measures.rounding",
    "schedules": "network.schedules",
    "score_bounds": "collapse.score_bounds",
    "selectability": "geometry.selectability",
    "sensitivity": "collapse.sensitivity",
    "speeds": "collapse.speeds",
    "sweeps": "sweeps",
    "tokens": "network.tokens",
    "weights": "network.weights",
    "transient": "collapse.transient",
}

__all__ = ["__version__", *_NAMES, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(import_module(f"dynsim.{_NAMES[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"dynsim.{_ROOMS[name]}")
    else:
        known = ", ".join(__all__)
        raise AttributeError(f"module 'dynsim' has no attribute {name!r}; it has {known}")
    globals()[name] = value  # found at once the next time, and by pdoc
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
