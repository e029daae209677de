"""``python -m dynsim`` lists the commands or runs one."""

from dynsim.cli.main import command

if __name__ == "__main__":
    command()
