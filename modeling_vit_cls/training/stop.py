"""Ctrl-C and SIGTERM while a run trains: it is asked to stop, and ends after the step with a checkpoint.

What each of them leads to is one line on the standard error.
"""

import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from tqdm import tqdm

_DEFAULT = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class StopSignals:
    """While `with` lasts, the first SIGINT or SIGTERM sets `received`; a second one ends the process's work at once.

    One that comes after the last step, when what was trained is not saved yet, stops nothing.

    Only handlers that Python itself gave are replaced, and only in the main thread, which alone may; a program that
    handles a signal itself, or ignores it, goes on doing so.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self.received = None
        if threading.current_thread() is threading.main_thread():
            for number, default in _DEFAULT.items():
                if signal.getsignal(number) == default:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, error: object, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self.received is not None and error is None:
            _say(f"{self.received.name} came after the last step: it stops nothing; send it again to stop what follows")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            name = signal.Signals(number).name
            raise _ending(
                signal.Signals(number), f"stopped at once by a second signal, {name}: what was not saved yet is lost"
            )
        self.received = signal.Signals(number)

    def end(self, step: int, checkpoint: object, go_on: str) -> NoReturn:
        """Say on the standard error what is kept and how to go on, and end as the signal asks.

        Raises KeyboardInterrupt after Ctrl-C, SystemExit with status 143 after SIGTERM.
        """
        assert self.received is not None
        line = f"stopped by {self.received.name} after step {step}, kept in {checkpoint}; to go on: {go_on}"
        raise _ending(self.received, line)


def _say(line: str) -> None:
    """Print a line above a progress bar; not where the signal came while another one was being printed."""
    with suppress(RuntimeError):
        tqdm.write(line, file=sys.stderr)


def _ending(number: signal.Signals, text: str) -> BaseException:
    """What ends the process's work as the signal asks; its text is printed here, once."""
    _say(text)
    return KeyboardInterrupt(text) if number == signal.SIGINT else SystemExit(128 + number)
