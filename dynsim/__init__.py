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

__version__ = "0.1.0"

#: Where each public name lives. Names and rooms are imported when first used: nothing is loaded,
#: and nothing compiled, by ``import dynsim``.
_NAMES = {
    "AttentionDynamics": "dynamics",
    "Dropout": "dropout",
    "Overflow": "simulation",
    "Record": "simulation",
    "Stopped": "simulation",
    "Trajectory": "trajectory",
    "collapse_rate": "rates",
    "expect": "expectations",
    "load": "trajectory",
    "predict": "predictions",
    "set_threads": "threads",
    "simulate": "simulation",
    "verdict": "verdicts",
}
_ROOMS = (
    "basins",
    "certificates",
    "connectivity",
    "continuation",
    "deviation",
    "engines",
    "equilibria",
    "expectations",
    "gaussian_keys",
    "geometry",
    "gram",
    "jacobian",
    "lyapunov",
    "masks",
    "measures",
    "minilm",
    "mlp",
    "nonnormal",
    "norms",
    "plots",
    "predictions",
    "rates",
    "rounding",
    "selectability",
    "tokens",
    "weights",
)

__all__ = ["__version__", *_NAMES, *_ROOMS]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(import_module(f"dynsim.{_NAMES[name]}"), name)
    if name in _ROOMS:
        return import_module(f"dynsim.{name}")
    raise AttributeError(f"module 'dynsim' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
