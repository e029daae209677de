"""What a reader of a figure would complain about, found in what is drawn."""

from collections import defaultdict
from unittest.mock import patch

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.legend import Legend
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

#: Dots per inch, and dots by which boxes may overlap: the padding of letters.
DPI, SLACK = 200, 2.0


def problems(figure):
    """Texts that overlap or leave the figure, legends over data, looks used twice; [] if none."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    texts = texts_drawn(canvas)
    return [
        *overlaps(texts),
        *outside(texts, figure),
        *legends_over_data(figure, canvas.get_renderer()),
        *looks_used_twice(figure),
    ]


def texts_drawn(canvas):
    """(words, box in pixels) of every text that is drawn."""
    seen, draw = {}, Text.draw

    def note(text, renderer):
        if text.get_visible() and text.get_text().strip():
            box = Text.get_window_extent(text, renderer)
            seen[id(text)] = (" ".join(text.get_text().split()), box, text)

    def drawn(text, renderer, *rest, **options):
        note(text, renderer)
        return draw(text, renderer, *rest, **options)

    with patch.object(Text, "draw", drawn):
        canvas.draw()
    return [
        (words, box) for words, box, text in seen.values() if text.get_alpha() != 0 and box.width
    ]


def overlaps(texts):
    inwards = np.array([SLACK, SLACK, -SLACK, -SLACK])
    boxes = [(words, Bbox.from_extents(*(box.extents + inwards))) for words, box in texts]
    return [
        f"{one!r} overlaps {other!r}"
        for k, (one, first) in enumerate(boxes)
        for other, second in boxes[k + 1 :]
        if first.overlaps(second)
    ]


def outside(texts, figure):
    wide, high = figure.bbox.width, figure.bbox.height
    return [
        f"{words!r} leaves the figure"
        for words, box in texts
        if box.x0 < -SLACK or box.y0 < -SLACK or box.x1 > wide + SLACK or box.y1 > high + SLACK
    ]


def legends_over_data(figure, renderer):
    legends = [*figure.legends, *(c for a in figure.axes for c in a.get_children()
                                  if isinstance(c, Legend))]  # fmt: skip
    for legend in legends:
        box = legend.get_window_extent(renderer)
        if any(covers(box, axes) for axes in figure.axes):
            words = ", ".join(text.get_text() for text in legend.get_texts())
            yield f"the legend {words!r} lies over data"


def covers(box, axes):
    """The box lies over a line, a mark or a bar of the panel."""
    for line in axes.get_lines():
        points = line.get_transform().transform(np.column_stack(line.get_data(orig=False)[:2]))
        points = points[np.isfinite(points).all(axis=1)]
        joined = line.get_linestyle() != "None"
        if not joined and not len(points):
            continue
        if len(points) > 1 and joined:
            steps = np.linspace(0, 1, 50)[:, None, None]
            points = ((1 - steps) * points[:-1] + steps * points[1:]).reshape(-1, 2)
        if inside(within(points, axes), box):
            return True
    for marks in axes.collections:
        if isinstance(marks, PathCollection) and hasattr(marks, "get_offset_transform"):
            offsets = marks.get_offset_transform().transform(np.ma.filled(marks.get_offsets(), 0))
            if inside(within(offsets, axes), box):
                return True
    return any(
        isinstance(bar, Rectangle) and bar.get_window_extent().overlaps(box) and bar.get_width()
        and bar.get_height() and bar.get_alpha() != 0
        for bar in axes.patches
    )  # fmt: skip


def within(points, axes):
    box = axes.bbox
    return points[(points >= [box.x0 - 2, box.y0 - 2]).all(1)
                  & (points <= [box.x1 + 2, box.y1 + 2]).all(1)]  # fmt: skip


def inside(points, box):
    return bool(((points > [box.x0, box.y0]).all(1) & (points < [box.x1, box.y1]).all(1)).any())


def looks_used_twice(figure):
    """Labelled lines of one panel, and entries of one legend, that look alike."""
    groups = [list(axes.get_lines()) for axes in figure.axes]
    for lines in groups:
        looks = defaultdict(set)
        for line in lines:
            if not line.get_label().startswith("_"):
                looks[look(line)].add(line.get_label())
        for labels in looks.values():
            if len(labels) > 1:
                yield f"{', '.join(sorted(labels))} look alike"


def look(line):
    filled = line.get_markerfacecolor()
    return (
        to_rgba(line.get_color(), line.get_alpha()),
        line.get_linestyle() if isinstance(line.get_linestyle(), str) else "dashes",
        str(getattr(line, "_unscaled_dash_pattern", "")),
        str(line.get_marker()),
        str(filled) if line.get_marker() not in ("None", "", None) else "",
        line.get_linewidth() if line.get_linestyle() != "None" else 0,
    )
