"""`vit-cls VERB ...`, also `python -m hub_scripts VERB ...`: exit status 0, 1 (it failed, one line), 2 (arguments).

130 after Ctrl-C, and 141 where what reads the output has closed it, as shells have it.
"""

import os
import sys

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # transformers 5 misses PyTorch aloud; we do not


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    try:
        from .command import run_command  # here: Ctrl-C while it imports, which takes seconds, ends in one line too

        status = run_command(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as stopped:
        print(f"vit-cls: {stopped or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        return 141


def _output_is_closed() -> bool:
    """Whether nobody reads what is printed, as after `| head`; what is left of it is thrown away then."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
