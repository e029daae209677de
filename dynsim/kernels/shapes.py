"""How the kernels lay out states and memory, known without Numba."""

from dynsim.kernels.processor import TILE_COLUMNS, TILE_ROWS

__all__ = [
    "LANE_ROWS",
    "PAD",
    "STRIP",
    "TEAM",
    "block_rows",
    "deviation_lane_memory",
    "deviation_memory",
    "lane_memory",
    "panel_columns",
    "private_memory",
    "shared_memory",
    "single_memory",
]

#: Lanes: rows of a tile, and what tokens and dimensions are padded to, the columns of a tile.
LANE_ROWS, PAD = TILE_ROWS // 2, 4
#: Rows: how many are measured together, and given to a thread together.
STRIP = 32
#: Keys and values, in numbers, with which blocks of many rows are faster.
_MANY = 80_000
#: int64 numbers by which the members of a team meet.
TEAM = 24


def lane_memory(w, rows, columns, heads, p, v, d, has_keys, has_values) -> list[int]:
    """Sizes of the scratch memory of `lanes.advance`, in the order of its arguments."""
    state, tile = rows * columns * w, LANE_ROWS * w
    return [
        state, state, state, has_keys * heads * rows * p * w, has_values * heads * rows * v * w,
        tile * p, tile * rows, tile * rows, tile * v, 2 * tile * columns, tile, 2 * d * w,
    ]  # fmt: skip


def single_memory(w, n, d, p, v) -> list[int]:
    """Sizes of the memory of `single.advance`, in the order of its arguments."""
    token, all_ = d * w, n * d * w
    return [
        token, token, p * w, v * w, p * w, n * w, n * w, v * w, token, 2 * w, all_, all_,
        2 * token, 5 * w,
    ]  # fmt: skip


def panel_columns(w: int) -> int:
    """Columns of a panel, for vectors of w numbers."""
    return TILE_COLUMNS * w


def block_rows(w: int, met: int) -> int:
    """Rows of a block that meets so many numbers of keys and values: whole tiles, and whole squares
    to transpose; many where these numbers hardly fit a core's own cache, to read them less often.
    """
    return STRIP if met > _MANY else max(TILE_ROWS, w)


def shared_memory(w, rows, columns, heads, p, v, before, has_keys, has_values) -> list[int]:
    """Sizes of the memory that a team of `rows.advance` shares, in the order of its arguments."""
    gap = 3 * w  # between panels: keeps their rows from meeting in one set of the cache
    keys = (has_keys * heads or 1) * rows * p
    values = (has_values * heads or 1) * (rows * v + v // panel_columns(w) * gap)
    sums = -(-rows // STRIP) * 2 * columns
    return [before * rows * columns, keys, keys, values, values, sums, sums]


def private_memory(w, block, columns, p, v, widest) -> list[int]:
    """Sizes of the memory of each member; `widest` is the most scores of a row at once."""
    return [
        block * p, block * (widest + w), block * max(v, p), block * columns, STRIP * columns,
        2 * columns, block,
    ]  # fmt: skip


def deviation_memory(w, rows, columns, heads, p, v, before, has_keys, has_values, block, widest):
    """Sizes of the scratch memory of `deviations.advance`, in the order of its arguments."""
    _, keys, _, values, _, sums, _ = shared_memory(
        w, rows, columns, heads, p, v, before, has_keys, has_values
    )
    state = rows * columns
    return [
        before * state, state, state, keys, values, sums, -(-rows // STRIP) * 8,
        *private_memory(w, block, columns, p, v, widest), 4 * columns, heads * p, widest + v,
    ]  # fmt: skip


def deviation_lane_memory(w, rows, columns, heads, p, v) -> list[int]:
    """Sizes of what `deviation_lanes.advance` needs beside `lane_memory`."""
    return [6 * columns * w, heads * p * w, (rows + v) * w]
