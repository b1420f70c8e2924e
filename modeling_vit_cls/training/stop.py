"""Ctrl-C and SIGTERM during training: the run ends after its current step, with a checkpoint.

Each signal leads to one line on stderr. In a run of several processes a signal to one of them is one to all.
"""

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from tqdm import tqdm

from .. import processes

_DEFAULT = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class StopSignals:
    """A context in which the first SIGINT or SIGTERM sets `received`, and a second one stops at once.

    A signal after the last step stops nothing, because the result must still be saved. Only Python's default handlers
    are replaced, and only in the main thread, where Python allows it. A program that handles or ignores a signal itself
    keeps doing so.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._key, self._shared = "", None  # where other processes tell process 0, and what all know from it

    def __enter__(self) -> "StopSignals":
        self.received, self._key, self._shared = None, processes.once("signal"), None
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
            _print(f"{self.received.name} came after the last step and was ignored; send it again to stop what follows")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            name = signal.Signals(number).name
            line = f"stopped at once by a second signal, {name}: what was not saved yet is lost"
            ending = _ending(signal.Signals(number), line)
            if processes.count() > 1:
                os._exit(128 + number)  # the end of Python would wait for the others
            raise ending
        self.received = signal.Signals(number)

    @property
    def agreed(self) -> signal.Signals | None:
        """The signal after which the run ends: in a run of several processes, the one of the last `share`."""
        return self.received if processes.count() == 1 else self._shared

    def share(self, control: dict[str, bool]) -> dict[str, bool]:
        """What the callbacks of process 0 decided, in all processes, and with it a signal that any of them received."""
        own = None if self.received is None else self.received.name
        name = processes.first_told(self._key, own)
        control, name = json.loads(processes.from_first(json.dumps([control, name])))
        self._shared = None if name is None else signal.Signals[name]
        return control

    def end(self, step: int, checkpoint: object, go_on: str) -> NoReturn:
        """Print on stderr where the run was saved and the command `go_on` that continues it, then end the run.

        Raises KeyboardInterrupt after Ctrl-C, SystemExit with status 143 after SIGTERM.
        """
        assert self.agreed is not None
        line = f"stopped by {self.agreed.name} after step {step}, kept in {checkpoint}; to go on: {go_on}"
        raise _ending(self.agreed, line)


def _print(line: str) -> None:
    """Print a line above a progress bar, unless the signal came while another line was being printed."""
    if processes.is_first():
        with suppress(RuntimeError):
            tqdm.write(line, file=sys.stderr)


def _ending(number: signal.Signals, text: str) -> BaseException:
    """The exception that ends the process as the signal demands. Its text is printed here, once."""
    _print(text)
    return KeyboardInterrupt(text) if number == signal.SIGINT else SystemExit(128 + number)
