"""``python -m dynsim.geometry``, short for ``python -m dynsim geometry``."""

import sys

from dynsim.__main__ import main
from dynsim.cli.process import carry_out

if __name__ == "__main__":
    carry_out(lambda: main(["geometry", *sys.argv[1:]]))
