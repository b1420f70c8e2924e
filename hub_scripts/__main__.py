"""`vit-cls VERB ...`, also `python -m hub_scripts VERB ...`: exit status 0, 1 (it failed, one line), 2 (arguments).

130 after Ctrl-C, and 141 where what reads the output has closed it, as shells have it.
"""

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    try:
        from .command import run_command  # here: Ctrl-C while it imports, which takes seconds, ends in one line too

        return run_command(arguments)
    except KeyboardInterrupt as stopped:
        if not str(stopped):  # else it was said already what is kept
            print("vit-cls: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
