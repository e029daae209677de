"""``python -m dynsim.equilibria``, short for ``python -m dynsim equilibria``."""

import sys

from dynsim.__main__ import main
from dynsim.cli.process import carry_out

if __name__ == "__main__":
    carry_out(lambda: main(["equilibria", *sys.argv[1:]]))
