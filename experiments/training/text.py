"""Real text that every machine has: the sources of Python's standard library and its licence.

Characters, not word pieces: the printable ASCII characters, the newline, and one sign for all
others. Which text it is depends on the version of Python.
"""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path

import numpy as np

__all__ = ["VOCABULARY", "decode", "encode", "excerpts", "language_reference", "standard_library"]

_OTHER = "\N{REPLACEMENT CHARACTER}"
#: Every character that a model knows; its number is its place.
VOCABULARY = "\n" + "".join(map(chr, range(32, 127))) + _OTHER
_HELD_OUT = 10


def encode(text: str) -> np.ndarray:
    """The characters' numbers, uint8.

    >>> encode("a b")
    array([66,  1, 67], dtype=uint8)
    """
    table = np.full(128, VOCABULARY.index(_OTHER), np.uint8)
    table[[ord(c) for c in VOCABULARY[:-1]]] = np.arange(len(VOCABULARY) - 1)
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    return table[np.minimum(codes, 127)]  # 127, delete, is among the others


def decode(ids: np.ndarray) -> str:
    """The text of these characters.

    >>> decode(encode("for i in (1, 2):"))
    'for i in (1, 2):'
    """
    return "".join(VOCABULARY[i] for i in ids)


@cache
def standard_library() -> tuple[np.ndarray, np.ndarray]:
    """(training text, held-out text), encoded: the library's top-level modules and LICENSE.txt.

    Every tenth file by name is held out.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted([*folder.glob("*.py"), *folder.glob("LICENSE.txt")])
    return _split([file.read_text(encoding="utf-8", errors="replace") for file in files])


@cache
def language_reference() -> tuple[np.ndarray, np.ndarray]:
    """(training text, held-out text), encoded: what Python's help() says of the language's topics.

    Prose for the most part; every tenth topic by name is held out.
    """
    from pydoc_data.topics import topics

    return _split([topics[name] for name in sorted(topics)])


def _split(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(the others, every tenth text), encoded and joined."""
    encoded = [encode(text) for text in texts]
    kept = [text for k, text in enumerate(encoded) if k % _HELD_OUT]
    return np.concatenate(kept), np.concatenate(encoded[::_HELD_OUT])


def excerpts(text: np.ndarray, count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Excerpts from random places: (count, length)."""
    places = rng.integers(len(text) - length + 1, size=count)
    return text[places[:, None] + np.arange(length)].astype(np.int64)
