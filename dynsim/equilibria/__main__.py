"""``python -m dynsim.equilibria``, short for ``python -m dynsim equilibria``."""

from dynsim.cli.main import command

if __name__ == "__main__":
    command("equilibria")
