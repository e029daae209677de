"""``dynsim tour``: seven screens for a newcomer, each a command with its picture."""

from __future__ import annotations

import argparse
import io
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from dynsim._files import written_whole
from dynsim.cli.command import Command, Outcome
from dynsim.cli.parsing import require_packages
from dynsim.cli.screens import SCREENS, TEXT, Screen
from dynsim.cli.terminal import plain, text

__all__ = ["COMMAND", "Shown", "main", "page"]

EXAMPLES = """\
  python -m dynsim tour
      seven screens: Enter goes on, q leaves
  python -m dynsim tour --screen 3
      the third alone: the law of 3^L
  python -m dynsim tour --page figures/tour
      the same as one page, README.md, with its pictures beside it
"""
#: The text that the real model reads.
_TEXT_FILE = Path("results/tour.txt")


@dataclass(frozen=True)
class Shown:
    """A screen whose command has run.

    data : the JSON object that the command wrote, empty where it did not run
    verdict : its verdict in words, or why it did not run
    picture : the path of the figure, empty without one
    """

    number: int
    screen: Screen
    data: dict
    verdict: str
    picture: str = ""
    status: int = 0

    @property
    def command(self) -> str:
        return f"python -m dynsim {self.screen.command}"


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tour")
    group.add_argument(
        "--screen", type=int, metavar="K", help=f"one of the {len(SCREENS)} (default: all of them)"
    )
    group.add_argument(
        "--no-pause", action="store_true",
        help="do not wait for Enter after each screen (default: wait, on a terminal)",
    )  # fmt: skip
    group.add_argument(
        "--page", metavar="DIR",
        help="write the tour as DIR/README.md with its pictures, too (default: no page)",
    )  # fmt: skip


def prepare(options: argparse.Namespace, words: list[str]) -> list[int]:
    """The numbers of the screens."""
    if options.screen is not None and not 1 <= options.screen <= len(SCREENS):
        raise ValueError(f"--screen is 1 to {len(SCREENS)}; got {options.screen}")
    if options.page and options.screen is not None:
        raise ValueError("--page is made of all screens; leave --screen out")
    if options.page:
        require_packages(name for screen in SCREENS for name in screen.packages)
    return [options.screen] if options.screen else list(range(1, len(SCREENS) + 1))


def compute(
    numbers: list[int], options: argparse.Namespace, progress: Callable[..., None]
) -> Outcome:
    at_terminal = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    waits = at_terminal and not (options.no_pause or options.json)
    seen = []
    for number in numbers:
        if not options.json:
            _announce(number)
        seen.append(_carried_out(number))
        if not options.json:
            _show(seen[-1])
        if waits and number != numbers[-1] and _leaves():
            break
    files = [str(page(seen, Path(options.page)))] if options.page else []
    ran = [one for one in seen if one.data]
    sentence = f"{len(ran)} of {len(numbers)} screens seen"
    return Outcome(
        data={"screens": [_summary(one) for one in seen], "page": options.page},
        verdict=sentence,
        notes="\n".join(f"wrote     {path}" for path in files),
        status=max((one.status for one in seen), default=0),
    )


def _carried_out(number: int) -> Shown:
    """Run the command of a screen, in this process, by the door that a shell would use."""
    from dynsim.cli.main import main as dynsim

    screen = SCREENS[number - 1]
    try:
        require_packages(screen.packages)
    except ImportError as missing:
        return Shown(number, screen, {}, f"left out: {missing}")
    if str(_TEXT_FILE) in screen.command:
        _TEXT_FILE.parent.mkdir(exist_ok=True)
        with written_whole(_TEXT_FILE) as temporary:
            temporary.write_text(TEXT)
    output = io.StringIO()
    with redirect_stdout(output):
        status = dynsim(shlex.split(screen.command))
    lines = output.getvalue().splitlines()
    files = [line.removeprefix("wrote").strip() for line in lines if line.startswith("wrote ")]
    written = next((path for path in files if path.endswith(".json")), None)
    if status or written is None:
        return Shown(number, screen, {}, f"the command ended with status {status}", "", status)
    data = json.loads(Path(written).read_text())
    picture = next((path for path in files if path.endswith(".png")), "")
    return Shown(number, screen, data, _verdict(data), picture)


def _verdict(data: dict) -> str:
    """The sentence of a run, or those of runs that are compared."""
    told = data["verdict"]
    return (
        told["sentence"]
        if "sentence" in told
        else "; ".join(f"{label}: {words}" for label, words in told.items())
    )


def _summary(one: Shown) -> dict:
    sentences = one.screen.sentences(one.data) if one.data else ()
    return {
        "screen": one.number,
        "title": one.screen.title,
        "command": one.command,
        "sentences": list(sentences),
        "verdict": one.verdict,
        "picture": one.picture,
    }


# --- on a terminal --------------------------------------------------------------------------------


def _announce(number: int) -> None:
    from rich.console import Console

    screen, console = SCREENS[number - 1], Console(highlight=False)
    console.rule(f"[bold]{number} of {len(SCREENS)}: {screen.title}", align="left")
    console.print(f"$ python -m dynsim {screen.command}\n", style="green", soft_wrap=True)


def _show(one: Shown) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not one.data:
        console.print(one.verdict, markup=False)
        console.print()
        return
    console.print(text(one.screen.picture(one.data)), soft_wrap=True)
    for sentence in one.screen.sentences(one.data):
        console.print(fill(sentence, min(console.width, 92)), markup=False)
    console.print(f"\npicture   {one.picture}\n", style="dim", soft_wrap=True, markup=False)


def _leaves() -> bool:
    """Wait for Enter; whether q, or the end of the input, came instead."""
    try:
        return input("Enter: next screen, q: leave > ").strip().lower().startswith("q")
    except EOFError:
        return True


# --- as a page ------------------------------------------------------------------------------------


def page(seen: list[Shown], folder: Path) -> Path:
    """Write the screens as README.md in a folder, with copies of their pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in seen:
        if one.picture:
            shutil.copyfile(one.picture, folder / f"{one.number}.png")
    path = folder / "README.md"
    with written_whole(path) as temporary:
        temporary.write_text(written(seen))
    return path


def written(seen: list[Shown]) -> str:
    """The page in Markdown."""
    parts = [
        "# A tour in seven screens",
        "`python -m dynsim tour` shows this page in a terminal, one screen at a time, and "
        "`--page DIR` writes it.\nEvery command runs in seconds; the numbers are those that it "
        "measured.",
    ]
    for one in seen:
        sentences = "\n".join(one.screen.sentences(one.data)) if one.data else one.verdict
        parts.append(f"## {one.number}. {one.screen.title}")
        parts.append(f"```sh\n{one.command}\n```")
        if one.data:
            parts.append(f"```text\n{plain(one.screen.picture(one.data))}\n```")
        parts.append(sentences)
        if one.picture:
            parts.append(f"![{one.screen.title}]({one.number}.png)")
    return "\n\n".join(parts) + "\n"


COMMAND = Command(
    name="tour",
    description="Seven screens for a newcomer, each a command, its picture and three sentences: "
    "masks, collapse, the law of 3^L, LayerNorm, equilibria, a real model, a theorem. The commands "
    "write into results/.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    examples=EXAMPLES,
    label="touring",
    resume="the same command begins anew; --screen K shows one",
    writes=False,
)
main = COMMAND.main
