import numpy as np
import pytest

from dynsim import AttentionDynamics, masks
from dynsim.engines.tiles import tiles
from dynsim.network.weights import Identity


def dense(groups, place, n):
    """The mask that the tiles stand for, (N, N)."""
    seen = []
    for group in groups:
        every = slice(0, len(group.rows))
        keys, allowed = group.keys(every), group.allowed(every)
        shape = *group.rows.shape, keys.shape[1]
        allowed = np.broadcast_to(True if allowed is None else allowed, shape)
        for tile, row in np.ndindex(group.rows.shape):
            seen.append(np.isin(np.arange(n), keys[tile, allowed[tile, row]]))
    return np.array(seen)[place]


@pytest.mark.parametrize("name", masks.MASKS)
@pytest.mark.parametrize("height", [None, 1, 3, 16, 50])
def test_tiles_are_the_mask(name, height):
    dynamics = AttentionDynamics(masks.MASKS[name](50), Identity())
    groups, place, _ = tiles(dynamics.layout, height)
    assert np.array_equal(dense(groups, place, 50), dynamics.allowed())


@pytest.mark.parametrize("name", ["local", "causal-local", "sinks", "dilated", "bigbird", "star"])
def test_tiles_of_a_sparse_mask_hold_few_scores(name):
    n = 4000
    groups = tiles(AttentionDynamics(masks.MASKS[name](n), Identity()).layout).groups
    scores = sum(group.rows.size * group.keys(slice(0, 1)).shape[1] for group in groups)
    assert scores < 40 * n


def test_wide_masks_are_cut_into_blocks_of_rows():
    groups = tiles(AttentionDynamics(masks.complete(20_000), Identity()).layout).groups
    assert len(groups) == 1
    assert groups[0].rows.shape[1] * 20_000 <= 2**24
    assert sum(array.nbytes for array in groups[0] if array is not None) < 100 * 20_000
