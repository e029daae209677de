"""``python -m dynsim.run``: the main job, short for ``python -m dynsim run``."""

from dynsim.cli.main import command

if __name__ == "__main__":
    command("run")
