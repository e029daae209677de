"""``dynsim verify``: check certificates of equilibria again, from their files alone."""

from __future__ import annotations

import json

from dynsim.cli.guard import guarded
from dynsim.cli.options import OneLineParser

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all claims proved, 1 some not, 2 bad input, 130 interrupted."""
    command = OneLineParser(
        prog="dynsim verify",
        description="Prove the claims of certificates again, in ball arithmetic, from their "
        "numbers alone (needs dynsim[certify]). All files are read before any is checked.",
        allow_abbrev=False,
    )
    command.add_argument("files", nargs="+", metavar="FILE", help="from equilibria --certify")
    command.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, nothing else"
    )
    return guarded(command, argv, _carry_out)


def _carry_out(options) -> int:
    from dynsim.equilibria import check, load_certificate

    certificates = {path: load_certificate(path) for path in options.files}
    found = {path: check(certificate) for path, certificate in certificates.items()}
    if options.json:
        print(json.dumps(found))
    else:
        for path, claims in found.items():
            print(path)
            for claim, proved in claims.items():
                print(f"  {'proved' if proved else 'NOT proved'}: {claim}")
    return 0 if all(all(claims.values()) for claims in found.values()) else 1
