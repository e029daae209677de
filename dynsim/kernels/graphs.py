"""Breadth-first search on compressed rows."""

import numpy as np

from dynsim.kernels.compiler import kernel


@kernel
def distances_from(indptr, indices, source):
    """Arrows from `source` to every node, following row -> indices; -1 where there is no way."""
    distance = np.full(len(indptr) - 1, -1, np.int64)
    queue = np.empty(len(indptr) - 1, np.int64)
    distance[source] = 0
    queue[0] = source
    head, tail = 0, 1
    while head < tail:
        node = queue[head]
        head += 1
        for e in range(indptr[node], indptr[node + 1]):
            neighbour = indices[e]
            if distance[neighbour] < 0:
                distance[neighbour] = distance[node] + 1
                queue[tail] = neighbour
                tail += 1
    return distance
