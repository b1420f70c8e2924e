"""Warnings of the package on the command line: one line each, in the form of its errors, above a progress bar."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tqdm.auto import tqdm


class _AboveBars(logging.Handler):
    """Writes to standard error without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def messages() -> Iterator[None]:
    """Show the package's warnings as "vit-cls: warning: ...", once, while the block runs."""
    handler = _AboveBars(logging.WARNING)
    handler.setFormatter(logging.Formatter("vit-cls: warning: %(message)s"))
    logger = logging.getLogger("modeling_vit_cls")
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = before
        logger.removeHandler(handler)


def no_bars_in_files() -> None:
    """Stop the progress bars of `datasets` where there is no terminal; ours and the Hub's stop by themselves."""
    with suppress(ImportError):  # of an extra, whose absence is said where it is needed
        import datasets

        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
