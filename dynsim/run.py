"""``python -m dynsim.run``: the main job, short for ``python -m dynsim run``."""

import sys

from dynsim.__main__ import main
from dynsim.cli.process import carry_out

if __name__ == "__main__":
    carry_out(lambda: main(["run", *sys.argv[1:]]))
