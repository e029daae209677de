"""Breadth-first search on compressed rows."""

from dynsim.kernels.simd import element, put

__all__ = ["distances_from"]


def distances_from(r):
    """Arrows from r.source to every node, following row -> indices (`fields.SEARCH`)."""
    put(r.distance, r.source, 0)
    put(r.queue, 0, r.source)
    head, tail = 0, 1
    while head < tail:
        node = element(r.queue, head)
        head += 1
        for e in range(element(r.indptr, node), element(r.indptr, node + 1)):
            neighbour = element(r.indices, e)
            if element(r.distance, neighbour) < 0:
                put(r.distance, neighbour, element(r.distance, node) + 1)
                put(r.queue, tail, neighbour)
                tail += 1
