"""Breadth-first search on compressed rows."""

__all__ = ["distances_from"]


def distances_from(indptr, indices, source, distance, queue):
    """Arrows from `source` to every node, following row -> indices.

    distance, one for every node and -1 at first, stays so where there is no way; queue is memory.
    """
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
