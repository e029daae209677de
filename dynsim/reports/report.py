"""report: a result as one page to open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynsim._values import shown
from dynsim.reports.page import Page, check_path

if TYPE_CHECKING:
    from dynsim.equilibria import Search
    from dynsim.models.profile import Profile
    from dynsim.results.trajectory import Trajectory

__all__ = ["report"]


def report(
    result: Trajectory | Mapping[str, Trajectory] | Profile | Search | str | Path,
    path: str | Path,
    **more: Any,
) -> Path:
    """Write a result as one page: sliders, curves, spectra, tokens on the sphere, attention.

    The page is one file of 5 to 10 MB that opens without network or server. It needs the extra
    `report` (plotly).

    Parameters
    ----------
    result : Trajectory, mapping of str to Trajectory, Profile, Search, or path of a sweep's store
        A trajectory shows the tokens that it recorded (``Record(states=K)``).
    path : str or Path
        Where the page goes, .html.
    **more
        What the page of this kind takes besides: `dynsim.reports.runs.page` (title, sentences,
        settings, states), `profiles.page` (beside, recording), `searches.page` (dynamics, which it
        needs), `sweeps.page` (sentences).

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    ValueError
        For another suffix, or a result that has no page.
    ImportError
        Without plotly.

    Examples
    --------
    >>> import dynsim
    >>> layer = dynsim.AttentionDynamics(dynsim.masks.causal(6), dynsim.weights.Orthogonal())
    >>> x0 = dynsim.tokens.sphere(samples=3, n=6, d=3)
    >>> run = dynsim.simulate(layer, x0, depth=20, record=dynsim.Record(states=1))
    >>> dynsim.report(run, "run.html")  # doctest: +SKIP
    PosixPath('run.html')
    """
    path = check_path(path)
    return _page(result, more).save(path)


def _page(result: Any, more: Mapping[str, Any]) -> Page:
    from dynsim.equilibria import Search
    from dynsim.models.profile import Profile
    from dynsim.reports import profiles, runs, searches, sweeps
    from dynsim.results.trajectory import Trajectory

    if isinstance(result, Trajectory):
        return runs.page({"": result}, **more)
    named = result.values() if isinstance(result, Mapping) else ()
    if named and all(isinstance(run, Trajectory) for run in named):
        return runs.page(result, **more)
    if isinstance(result, Profile):
        return profiles.page(result, **more)
    if isinstance(result, Search):
        return searches.page(result, **more)
    if isinstance(result, (str, Path)):
        return sweeps.page(result, **more)
    raise ValueError(
        f"a report is of a trajectory, several by name, a profile, a search or the store of a "
        f"sweep; got {shown(result)}"
    )
