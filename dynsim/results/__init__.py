"""Results: what a simulation leaves, in memory, on disk and as a figure.

Public: `trajectory.Trajectory` holds measures by sample and depth, final tokens and provenance;
`trajectory.load` and `joined` read files and put parts of a run together, and `netcdf` writes them;
`plots` draws trajectories, basins, branches, exponents and ellipsoids. `written_whole` writes any
file whole or not at all.
"""

from dynsim._files import written_whole

__all__ = ["written_whole"]
