"""``python -m dynsim.run``: the main job, short for ``python -m dynsim run``."""

import sys

from dynsim.__main__ import command

if __name__ == "__main__":
    command(["run", *sys.argv[1:]])
