"""Small pictures for a terminal, of characters alone: curves, bars, counts and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["bars", "curves", "dots", "matrices", "plain"]

#: A piece of a picture: characters, and the colour in which a terminal shows them.
Piece = tuple[str, str]
COLOURS = ("blue", "red", "green", "magenta", "yellow", "cyan")
#: Bits of the eight dots of a Braille character, by row and column.
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def plain(lines: Sequence[Sequence[Piece]]) -> str:
    """The characters of a picture, without colours.

    >>> print(plain(bars({"one": 1.0, "two": 2.0}, width=8)))
    one  ████
    two  ████████
    """
    return "\n".join("".join(words for words, _ in line).rstrip(" ⠀") for line in lines)


def text(lines: Sequence[Sequence[Piece]]) -> Text:
    """A picture for rich, with colours."""
    from rich.text import Text

    shown = Text()
    for line in lines:
        for words, colour in line:
            shown.append(words, style=colour)
        shown.append("\n")
    return shown


def curves(
    series: Mapping[str, Sequence[float]], width: int = 52, height: int = 10
) -> list[list[Piece]]:
    """Curves over their index, each named where it ends; the largest and least value at the left.

    series : up to six, of finite numbers, equally long or shorter

    >>> for line in plain(curves({"falling": [0, -1, -2, -3]}, width=8, height=3)).splitlines():
    ...     print(line)
          0 ⠑⠢⡀
            ⠀⠀⠈⠑⢄⡀
         -3 ⠀⠀⠀⠀⠀⠈⠢⢄ falling
    """
    everything = np.concatenate([np.asarray(values, float) for values in series.values()])
    low, high = everything.min(), everything.max()
    high = high if high > low else low + 1.0
    cells = np.zeros((height, width), dtype=int)
    owner = np.full((height, width), -1)
    longest = max(len(values) for values in series.values())
    ends: dict[int, list[Piece]] = {}
    for k, (name, values) in enumerate(series.items()):
        ys = (high - np.asarray(values, float)) / (high - low) * (4 * height - 1)
        xs = np.arange(len(values)) / max(longest - 1, 1) * (2 * width - 1)
        _trace(cells, owner, xs, ys, k)
        row = _free(ends, round(ys[-1]) // 4, height)
        ends.setdefault(row, []).append((f" {name}", COLOURS[k % len(COLOURS)]))
    lines: list[list[Piece]] = []
    for row in range(height):
        side = {0: f"{high:7.3g} ", height - 1: f"{low:7.3g} "}.get(row, " " * 8)
        drawn = [
            (chr(0x2800 + cell), COLOURS[k % len(COLOURS)] if k >= 0 else "")
            for cell, k in zip(cells[row], owner[row], strict=True)
        ]
        lines.append([(side, "dim"), *drawn, *ends.get(row, [])])
    return lines


def _trace(cells: np.ndarray, owner: np.ndarray, xs: np.ndarray, ys: np.ndarray, k: int) -> None:
    """Set the dots of a line through points, in dots from the left and from the top."""
    columns = np.arange(int(np.ceil(xs[0])), int(np.floor(xs[-1])) + 1)
    heights = np.interp(columns, xs, ys)
    for column, height, following in zip(
        columns, heights, [*heights[1:], heights[-1]], strict=True
    ):
        first, last = sorted((round(height), round(following)))
        for y in range(first, max(last, first + 1)):
            cells[y // 4, column // 2] |= _DOTS[y % 4, column % 2]
            owner[y // 4, column // 2] = k


def _free(ends: Mapping[int, object], row: int, height: int) -> int:
    """The free row that is nearest to one."""
    return min(range(height), key=lambda other: (other in ends, abs(other - row)))


def bars(
    values: Mapping[str, float], width: int = 44, words: Mapping[str, str] | None = None
) -> list[list[Piece]]:
    """A bar a value, as long as it is large, with words behind it; values are not negative."""
    eighths = " ▏▎▍▌▋▊▉"
    most = max([*values.values(), 0.0]) or 1.0
    room = max(map(len, values))
    lines: list[list[Piece]] = []
    for name, value in values.items():
        full, rest = divmod(round(8 * width * value / most), 8)
        drawn = "█" * full + eighths[rest].strip()
        behind = f" {words[name]}" if words else ""
        lines.append([(f"{name:>{room}}  ", ""), (drawn, "blue"), (behind, "dim")])
    return lines


def dots(counts: Mapping[str, int], columns: int = 40) -> list[list[Piece]]:
    """A dot a sample, in one colour and character a kind; what they stand for below.

    >>> print(plain(dots({"staying": 2, "collapsed": 5}, columns=4)))
    ●●··
    ···
    ● staying: 2
    · collapsed: 5
    """
    looks = list(zip("●·○×+", ("blue", "red", "green", "magenta", "yellow"), strict=True))
    drawn = [looks[k % 5] for k, number in enumerate(counts.values()) for _ in range(number)]
    lines: list[list[Piece]] = [
        list(drawn[start : start + columns]) for start in range(0, len(drawn), columns)
    ]
    for k, (kind, number) in enumerate(counts.items()):
        character, colour = looks[k % 5]
        lines.append([(f"{character} {kind}: {number}", colour)])
    return lines


def matrices(allowed: Mapping[str, np.ndarray]) -> list[list[Piece]]:
    """Masks side by side, rows are queries: a filled square where row i may attend to column j.

    >>> print(plain(matrices({"causal": np.tri(2, dtype=bool)})))
    causal
    ■ ·
    ■ ■
    """
    widths = [max(2 * len(mask), len(name)) + 3 for name, mask in allowed.items()]
    named = zip(allowed, widths, COLOURS, strict=False)
    lines: list[list[Piece]] = [[(f"{name:<{width}}", colour) for name, width, colour in named]]
    for row in range(max(map(len, allowed.values()))):
        line: list[Piece] = []
        for mask, width, colour in zip(allowed.values(), widths, COLOURS, strict=False):
            squares = (
                " ".join("■" if seen else "·" for seen in mask[row]) if row < len(mask) else ""
            )
            line.append((f"{squares:<{width}}", colour))
        lines.append(line)
    return lines
