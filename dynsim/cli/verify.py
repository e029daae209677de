"""``dynsim verify``: check certificates of equilibria again, from their files alone."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dynsim.cli.command import Command, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COMMAND", "main"]

EXAMPLES = """\
  python -m dynsim equilibria --mask causal --value jordan:6 --tokens 3 --certify --name three
  python -m dynsim verify results/three.certificate-*.json
      proofs of what was found, checked without the program that found them
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="from equilibria --certify")


def prepare(options: argparse.Namespace, words: list[str]) -> dict[str, dict]:
    from dynsim.equilibria import load_certificate

    return {path: load_certificate(path) for path in options.files}


def compute(
    certificates: dict[str, dict], options: argparse.Namespace, progress: Callable[[float], None]
) -> Outcome:
    from dynsim.equilibria import check

    proved = {}
    for path, certificate in certificates.items():
        proved[path] = check(certificate)
        progress(len(proved) / len(certificates))
    claims = [holds for claims in proved.values() for holds in claims.values()]
    missing = claims.count(False)
    lines = []
    for path, proofs in proved.items():
        lines.append(path)
        lines += [
            f"  {'proved' if holds else 'NOT proved'}: {what}" for what, holds in proofs.items()
        ]
    return Outcome(
        data={"certificates": proved},
        verdict=f"{missing} of {len(claims)} claims NOT proved"
        if missing
        else f"all {len(claims)} claims proved",
        table="\n".join(lines),
        status=1 if missing else 0,
    )


COMMAND = Command(
    name="verify",
    description="Prove the claims of certificates again, in ball arithmetic, from their numbers "
    "alone (needs dynsim[certify]). All files are read before any is checked.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    packages=lambda options: ("flint",),
    examples=EXAMPLES,
    label="checking",
    resume="the same command begins anew",
    writes=False,
)
main = COMMAND.main
