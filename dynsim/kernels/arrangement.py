"""How numbers lie in vectors: what the code of a layer leaves open.

There are two: `lanes` (a vector is one number of several samples, so a sum over the numbers of a
token is a sum of vectors) and `rows` (a vector is neighbouring numbers of one token, so such a sum
ends with one over the lanes). All the rest, in `tokens`, `layer` and `deviations`, is written once.
"""

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Arrangement"]


class Arrangement(NamedTuple):
    """Functions for kernels; r is the record.

    head(x): the first number of the token x, as a vector
    inside(z, e, d): z, the vector of the token at e, with zeros in what is beyond d numbers
    joined(z), peak(z): sum and maximum over the lanes, if they hold numbers of one token
    project(out, down, x, x_down, matrix, columns, rows, depth): out = x matrix
    publish(r, turn, z, i, tall, keys, values): tokens z, of numbers i .., as keys and values
    published(r, z): (keys, values) of the tokens z, where that puts them
    span(r, i, tall): (first, last), the keys between which tokens i .. i + tall - 1 attend
    scored(x, first, last): numbers from the first to the last score of a row
    score(r, keys, first, last): r.scores = r.q keys, for a block
    softmax(r, h, i, s, first, last, note): s = e^(s - max s) for token i in head h, 0 where it may
        not attend; their sum. Where entropies are wanted, note gains that of these weights.
    mix(r, values, first, last): r.mixed = r.scores values, for a block
    listed(r, h, i, tall, keys, values, note): whether all that was done already, from lists of keys
    """

    head: Callable
    inside: Callable
    joined: Callable
    peak: Callable
    project: Callable
    publish: Callable
    published: Callable
    span: Callable
    scored: Callable
    score: Callable
    softmax: Callable
    mix: Callable
    listed: Callable
