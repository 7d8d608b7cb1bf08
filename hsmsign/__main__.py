"""`python -m hsmsign` is the `hsmsign` command."""

from hsmsign.cli.main import run

if __name__ == "__main__":
    run()
