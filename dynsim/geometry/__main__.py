"""``python -m dynsim.geometry``, short for ``python -m dynsim geometry``."""

from dynsim.cli.main import command

if __name__ == "__main__":
    command("geometry")
