"""sweep: compute what a store lacks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynsim._values import whole
from dynsim.sweeps.execution import Batch, Cluster, Local, Machines, carry_out
from dynsim.sweeps.specification import Specification
from dynsim.sweeps.store import Store, results

if TYPE_CHECKING:
    import xarray
    from distributed import Client

__all__ = ["Interrupted", "complete", "sweep"]


class Interrupted(KeyboardInterrupt):
    """The sweep was interrupted; all finished batches are in the store."""


def sweep(
    store: str | Path,
    parameters: Mapping[str, object] | None = None,
    *,
    cell: str = "run",
    design: str = "grid",
    points: int | None = None,
    design_seed: int = 0,
    keep: Sequence[str] | None = None,
    workers: int | None = None,
    scheduler: str | Client | None = None,
    retry: bool = False,
    progress: Callable[[float], None] | None = None,
    **more: object,
) -> xarray.Dataset:
    """Compute every cell of a sweep that the store does not hold yet; the store, opened lazily.

    Parameters
    ----------
    store : path
        Where results are kept (`dynsim.sweeps.store` says how). If it is there it must be of the
        same sweep, and is completed.
    parameters, **more
        A value, a list of values, or words for values, as ``window="1:64:log8"``, of each
        parameter (`dynsim.sweeps.PARAMETERS`); ``seeds=5`` for the seeds 0 to 4.
    cell : str
        What a cell is, a name in `dynsim.sweeps.CELLS`: "run" of a dynamics, "basins",
        "equilibria", "lyapunov" or "probe".
    design : str
        "grid", all combinations; "zip", lists side by side; "sobol" or "latin", so many `points`
        in intervals ``beta="0.1:10:log"``, drawn after `design_seed`.
    keep : sequence of str
        Names in the `keep` of that kind of cell; by default its `kept`.
    workers : int, optional
        Processes; all cores unless given. Results do not depend on it. As they begin anew, a
        script that calls this does so under ``if __name__ == "__main__":``.
    scheduler : str or distributed.Client, optional
        Address of the scheduler of a Dask cluster, whose workers are used in place of processes.
    retry : bool
        Compute cells that failed once more.
    progress : callable, optional
        Called with the share of cells that are done.

    Raises
    ------
    ValueError
        Before any work: a cell that cannot be, another sweep's store, a store in use.
    OSError
        Where the system does not let it write.
    UserWarning
        For device="cuda" on a machine without a GPU: cells run on the CPU.
    Interrupted
        (a KeyboardInterrupt) on Ctrl-C. The same call goes on.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = sweep(f"{folder}/store", mask="causal,complete", value="orthogonal", norm="unit",
    ...                  tokens=6, dim=3, samples=2, depth=20, seeds=2, workers=1)
    ...     data["verdict"].sel(mask="causal").values.tolist()
    ['collapsed', 'collapsed']
    """
    given = {**(parameters or {}), **more}
    specification = Specification.of(given, design, points, design_seed, keep, cell)
    if scheduler is not None and workers is not None:
        raise ValueError("workers are processes here; a scheduler has its own; leave one out")
    workers = None if workers is None else whole("number of workers", workers, least=1)
    machines = Local(workers) if scheduler is None else Cluster(scheduler)
    if scheduler is None and (words := specification.warning):
        warnings.warn(words, stacklevel=2)
    complete(Store(store, specification), machines, retry, progress)
    return results(store)


def complete(
    store: Store,
    machines: Machines,
    retry: bool = False,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Compute what a store lacks; with `retry` also its cells that failed."""
    specification = store.specification
    finished = 0

    def report(number: int) -> None:
        nonlocal finished
        finished += number
        if progress is not None:
            progress(finished / specification.n_cells)

    def lacking() -> Iterator[Batch]:
        for batch in specification.batches:
            if not store.has(batch):
                yield batch, specification.cells(batch)
                continue
            failed = store.failed_cells(batch) if retry else []
            report(specification.size(batch) - len(failed))
            if failed:
                cells = specification.cells(batch)
                yield batch, [cells[k] for k in failed]

    def done(batch: Batch, computed: list[dict[str, Any] | str]) -> None:
        number, _ = batch
        whole_batch = computed
        if store.has(number):
            whole_batch = store.read(number)
            for k, cell in zip(store.failed_cells(number), computed, strict=True):
                whole_batch[k] = cell
        try:
            store.write(number, whole_batch)
        except OSError as error:
            raise _with_remedy(error, store.path) from None
        report(len(computed))

    try:
        with store.locked():
            carry_out(lacking(), specification.keep, machines, done)
    except KeyboardInterrupt:
        raise Interrupted(f"{finished} of {specification.n_cells} cells are in the store") from None


def _with_remedy(error: OSError, path: Path) -> OSError:
    reason = str(error) if error.errno is None else os.strerror(error.errno)
    words = f"{reason}; finished batches are kept, and the same command goes on with them"
    return OSError(error.errno, words, str(path))
