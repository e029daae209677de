"""The records of the kernels, and how they lay out states and memory; known without Numba.

A state of n tokens of d numbers is padded with zeros, to `rows` tokens and `columns` numbers. In
the arrangement "lanes" every number is a vector, one sample in each of its `lanes`; in "rows" a
vector holds neighbouring numbers of one token, and `lanes` is 1. A token takes `row` = columns x
lanes numbers, of which the first `long` are not padding that can be left out.
"""

import math

from dynsim.kernels.processor import TILE_COLUMNS, TILE_ROWS, vector_width
from dynsim.kernels.record import Array, Record

__all__ = [
    "CHUNK",
    "COSINES",
    "DIRECT",
    "FEW",
    "GROUP",
    "HULL",
    "LANES",
    "LANE_ROWS",
    "LARGE",
    "NOTHING",
    "PAD",
    "ROWS",
    "SEARCH",
    "SERIES",
    "SHORT",
    "SINGULAR",
    "STRIP",
    "TEAM",
    "block_rows",
    "panel_columns",
]

#: Lanes: rows of a tile, and what tokens and dimensions are padded to, the columns of a tile.
LANE_ROWS, PAD = TILE_ROWS // 2, 4
#: Tokens that are measured together, and in the arrangement "rows" given to a thread together.
STRIP = 32
#: Keys and values, in numbers, with which blocks of many rows are faster.
_MANY = 80_000
#: int64 numbers by which the members of a team meet.
TEAM = 24

# Where tokens 1 c + s Z pass from one formula to another.
#: Deviations above so many times the first token, and tokens whose square is below this share of
#: its square, are normalised as tokens.
LARGE, SHORT = 1e6, 0.05
#: Tokens with a smaller log mu count as equal.
NOTHING = -1e100
#: Scores between deviations above which attention, not its difference to a common row, is computed.
DIRECT = 0.3
#: (e^b - 1) / b = 1 + b (1 / 2! + b (1 / 3! + ...)), to the last bit for |b| <= DIRECT: 1 / n!.
SERIES = tuple(1.0 / math.factorial(n) for n in range(13, 0, -1))


def panel_columns(w: int) -> int:
    """Columns of a panel, for vectors of w numbers."""
    return TILE_COLUMNS * w


def block_rows(w: int, met: int) -> int:
    """Rows of a block that meets so many numbers of keys and values: whole tiles, and whole squares
    to transpose; many where these numbers hardly fit a core's own cache, to read them less often.
    """
    return STRIP if met > _MANY else max(TILE_ROWS, w)


def _state(r) -> int:
    return r.rows * r.row


def _keys(r) -> int:
    return r.rows * r.p_row + r.head_keys * (r.heads - 1)


def _values(r) -> int:
    return r.value_room + r.head_values * (r.heads - 1)


def _strips(r) -> int:
    """What is summed of every strip: mean, sum of directions, and six numbers in each lane."""
    return -(-r.n // STRIP) * (2 * r.row + 6 * r.w)


_SIZES = """
    n d p v heads systems given start layers samples rows columns row long p_wide p_row v_wide v_row
    s_row block head_keys value_room head_values biased has_keys has_values before branch after
    centre function wanted followed common_keys ordered
    normed turned half has_biases bias_row has_sinks
"""  # head_keys, head_values: from one head's to the next's, 0 where tokens serve all heads

_GIVEN = {
    # weights, of each system `given` layers, used in turn from number `start` on
    "query": Array(lambda r: r.systems * r.given * r.heads * r.d * r.p_wide),
    "query_bias": Array(lambda r: r.systems * r.given * r.heads * r.p_row),
    "key": Array(lambda r: r.has_keys * r.systems * r.given * r.heads * r.d * r.p_wide),
    "value": Array(lambda r: r.has_values * r.systems * r.given * r.heads * r.d * r.v_wide),
    "output": Array(lambda r: r.systems * r.given * r.heads * r.v * r.columns),
    "output_bias": Array(lambda r: r.systems * r.given * r.row),
    # the system of each sample, where there are several
    "system": Array(lambda r: (r.systems > 1) * r.samples, "int64"),
    "gain": Array(lambda r: r.row),
    "bias": Array(lambda r: r.row),
    # the mask: token i attends to begin[i] .. end[i] - 1
    "begin": Array(lambda r: r.n, "int64"),
    "end": Array(lambda r: r.n, "int64"),
    # the order in which tokens become keys and values, those attended to first, if ordered
    "order": Array(lambda r: r.ordered * r.n, "int64"),
    # the state, changed in place: tokens, or their deviations from the first with its log size
    "x": Array(lambda r: r.samples * _state(r)),
    "center": Array(lambda r: r.followed * r.samples * r.row),
    "log_size": Array(lambda r: r.followed * r.samples * r.w),
    # the cheap measures, (layers, 5, samples, w); where followed also log10 mu and the largest
    # score between deviations, infinite where that does not matter, (layers, 7, ...)
    "observed": Array(lambda r: r.layers * (5 + 2 * r.followed) * r.samples * r.w, "float64"),
    # gains the entropies of all rows of attention, (samples, n, w), in nats, if wanted
    "entropy": Array(lambda r: r.wanted * r.samples * r.n * r.w),
}

#: What positions, QK-norm and sinks are given, where there are any; else nothing is touched. Each
#: head has `bias_row` biases: of the offsets j - i from 1 - n on or, where the mask is in lists, of
#: the entries of those.
_PARTS = {
    "query_gain": Array(lambda r: r.normed * r.p_row),
    "key_gain": Array(lambda r: r.normed * r.p_row),
    "cosines": Array(lambda r: r.turned * r.n * r.half),
    "sines": Array(lambda r: r.turned * r.n * r.half),
    "biases": Array(lambda r: r.has_biases * r.heads * r.bias_row),
    "sinks": Array(lambda r: r.has_sinks * r.heads),
}

_OWN = {
    "q": Array(lambda r: r.block * r.p_row, scratch="job"),
    "scores": Array(lambda r: r.block * r.s_row, scratch="job"),
    "mixed": Array(lambda r: r.block * max(r.v_row, r.p_row), scratch="job"),
    "out": Array(lambda r: r.block * r.row, scratch="job"),
    "head": Array(lambda r: r.block * r.row, scratch="job"),
    "shares": Array(lambda r: r.block * r.w, scratch="job"),
    "mean": Array(lambda r: 2 * r.row, scratch="job"),
    "spare": Array(lambda r: STRIP * r.row, scratch="job"),
    "next": Array(lambda r: r.has_next * _state(r), scratch="job"),
    # of deviations: tokens as they are, c in several stages, what queries have in common, the row
    # of attention that all tokens have in common and its mean value
    "whole": Array(lambda r: r.followed * _state(r), scratch="job"),
    "alone": Array(lambda r: r.followed * r.block * r.row, scratch="job"),
    "tokens": Array(lambda r: r.followed * 7 * r.row, scratch="job"),
    "shifts": Array(lambda r: r.followed * r.heads * r.p_row, scratch="job"),
    "common": Array(lambda r: r.followed * (r.s_row + r.v_row), scratch="job"),
}


def _shared(owner: str) -> dict[str, Array]:
    """What the members of a team share, if there is one."""
    return {
        "seen": Array(lambda r: (r.before or r.followed) * _state(r), scratch=owner),
        "keys": Array(_keys, scratch=owner),
        "values": Array(_values, scratch=owner),
        "sums": Array(_strips, scratch=owner),
    }


#: Lanes: `offsets`, if there, are added to the scores.
LANES = Record(
    f"{_SIZES} has_next has_offsets",
    "skip weight scale shift inverse_size qk_shift",
    **_GIVEN,
    **_PARTS,
    offsets=Array(lambda r: r.has_offsets * r.n * r.n),
    **_OWN,
    **_shared("job"),
)

#: Rows: token i attends to indices[begin[i]:end[i]] if `lists`. Teams of `members` fill one set of
#: keys and values while they read the other.
ROWS = Record(
    f"{_SIZES} has_next lists value_step edges member members",
    "skip weight scale shift inverse_size qk_shift",
    **_GIVEN,
    **_PARTS,
    indices=Array(lambda r: r.lists * r.edges, "int32"),
    meeting=Array(lambda r: TEAM, "int64"),
    **_OWN,
    **_shared("team"),
    other_keys=Array(_keys, scratch="team"),
    other_values=Array(_values, scratch="team"),
    other_sums=Array(_strips, scratch="team"),
)

#: Points of convex hulls nearest to others. `sets` sets of n points, of d < down numbers and zeros
#: from there on, zeros up to point `keys`, and `free` directions; columns are the same transposed.
HULL = Record(
    "sets n d free keys across down early",
    "enough",
    rows=Array(lambda r: r.sets * r.across * r.down),
    columns=Array(lambda r: r.sets * r.d * r.across),
    step=Array(lambda r: r.down),
    query=Array(lambda r: r.sets * r.n * r.d),
    support=Array(lambda r: r.sets * r.n * (r.d + 1), "int64"),
    weights=Array(lambda r: r.sets * r.n * (r.d + 1)),
    members=Array(lambda r: r.down, "int64"),
    **dict.fromkeys(
        ["own", "x", "a", "share", "wanted", "right"], Array(lambda r: r.down, scratch="job")
    ),
    scores=Array(lambda r: r.across, scratch="job"),
    basis=Array(lambda r: r.down**2, scratch="job"),
    triangle=Array(lambda r: r.down**2, scratch="job"),
)

#: Breadth-first search from `source`: distance is -1 at first, and stays so where there is no way.
SEARCH = Record(
    "n source edges",
    indptr=Array(lambda r: r.n + 1, "int64"),
    indices=Array(lambda r: r.edges, "int32"),
    distance=Array(lambda r: r.n, "int64"),
    queue=Array(lambda r: r.n, "int64"),
)

#: Singular values and cosines: rows of a matrix that are taken at once, and matrices that are
#: worked on together: two registers of them or, where there are only few, two matrices.
CHUNK, GROUP, FEW = 32, 2 * vector_width(64), 2


def _work_of_singular(r) -> int:
    short, tall = min(r.n, r.d), max(r.n, r.d)
    wide = short + 3
    panels = wide * ((max(tall, wide) | 1) + CHUNK + 1) + CHUNK * short
    vectors = 28 + panels + max(0, 5 * tall + 4 * wide - wide * (CHUNK + 1))
    return (6 + 4 * short) * GROUP + vectors * GROUP // 2


#: Singular values of `count` matrices x (count, n, d): sigma (min(n, d), count), its rows `across`
#: apart; work is memory.
SINGULAR = Record(
    "count n d across",
    x=Array(lambda r: r.count * r.n * r.d),
    sigma=Array(lambda r: (min(r.n, r.d) - 1) * r.across + r.count),
    work=Array(_work_of_singular),
)

#: The least cosine between rows of each of `count` matrices x (count, n, d).
COSINES = Record(
    "count n d",
    x=Array(lambda r: r.count * r.n * r.d),
    smallest=Array(lambda r: r.count),
    work=Array(lambda r: ((r.n + 3) * r.d + 2) * GROUP // 2),
)
