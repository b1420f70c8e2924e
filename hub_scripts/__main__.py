"""`vit-cls VERB ...`, also `python -m hub_scripts VERB ...`: exit status 0, 1 (it failed, one line), 2 (arguments).

130 after Ctrl-C, and 141 where what reads the output has closed it, as shells have it.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .verbs import command_line


@contextmanager
def _interrupts_noted() -> Iterator[None]:
    """Raise KeyboardInterrupt after Ctrl-C, also where it came while a callback of Python's swallowed the exception."""
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if received:
        raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    try:
        with _interrupts_noted():
            read = command_line().parse_args(arguments)  # `--help` and `--version` end here
            from .command import run_command  # here: Ctrl-C while it imports, which takes seconds, is one line too

        return run_command(read)
    except KeyboardInterrupt as stopped:
        if not str(stopped):  # else it was said already what is kept
            print("vit-cls: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
