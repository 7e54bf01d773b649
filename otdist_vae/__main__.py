"""The command ``otdist-vae``: says in one line what to install where the extra is missing."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        from .cli import main as run

        return run(arguments)
    except ModuleNotFoundError as error:
        print(f'otdist-vae: {error.name} is missing: pip install "otdist[vae]"', file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
