"""``python -m dynsim.run``: the main job. The command itself is in `dynsim.cli.run`."""

import sys

from dynsim.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
