"""A page: one HTML file that needs nothing else, neither network nor server."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynsim._files import as_path, written_whole

if TYPE_CHECKING:
    from dynsim.reports.views import Frames, View

__all__ = ["MOST_BYTES", "SUFFIXES", "Case", "Page", "check_path"]

#: How large a page may be.
MOST_BYTES = 10_000_000
SUFFIXES = (".html", ".htm")
#: The browser is told to fetch nothing; Plotly builds functions and styles as it goes.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)


@dataclass(frozen=True)
class Case:
    """What the slider of a page moves: frames and the views that show them."""

    name: str
    frames: Frames
    views: Sequence[View]

    def data(self) -> dict[str, Any]:
        views = [view.data() for view in self.views]
        return {"name": self.name, "frames": self.frames.data(), "views": views}


@dataclass(frozen=True)
class Page:
    """One self-contained page.

    title : what it is of
    verdict : sentences, the first thing that stands there
    settings : (name, value), the table at the end
    cases : at least one; several are chosen from by a list
    shared : views that stand before those of every case
    notes : what is shown and what is not
    """

    title: str
    verdict: Sequence[str]
    settings: Sequence[tuple[str, str]]
    cases: Sequence[Case]
    shared: Sequence[View] = ()
    notes: Sequence[str] = field(default=())

    def html(self) -> str:
        """The page as text. Raises ImportError without plotly."""
        data = {
            "shared": [view.data() for view in self.shared],
            "cases": [case.data() for case in self.cases],
        }
        parts = {
            "policy": escape(_POLICY),
            "title": escape(self.title),
            "style": _own("page.css"),
            "script": _own("page.js"),
            "verdict": _paragraphs(self.verdict),
            "notes": _paragraphs(self.notes, ' class="note"'),
            "settings": _table(self.settings),
            "data": _json(data),
            "plotly": _plotly(),
        }
        return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _own("page.html"))

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all.

        Raises ValueError for another suffix than .html, ImportError without plotly, OSError where
        the system does not let it write.
        """
        path = check_path(path)
        text = self.html().encode()
        if len(text) > MOST_BYTES:
            raise ValueError(
                f"the page would have {len(text) / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}; "
                f"put less on it"
            )
        with written_whole(path) as temporary:
            temporary.write_bytes(text)
        return path


def check_path(path: str | Path) -> Path:
    """The path of a page. Raises ValueError for a suffix other than .html, ImportError without
    plotly, which every page holds."""
    path = as_path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a report is a page .html; got {path.name!r}")
    if find_spec("plotly") is None:
        raise ImportError('a report needs the package plotly; pip install "dynsim[report]"')
    return path


def _json(data: Any) -> str:
    """JSON that may stand in a script element: no tag begins or ends in it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _paragraphs(sentences: Sequence[str], attributes: str = "") -> str:
    return "\n".join(f"<p{attributes}>{escape(sentence)}</p>" for sentence in sentences)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return "<table>\n" + "\n".join(cells) + "\n</table>"


def _own(name: str) -> str:
    return files("dynsim.reports").joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """The source of Plotly, 4.5 MB."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source
