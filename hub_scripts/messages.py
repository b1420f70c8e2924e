"""Warnings of the package on the command line: one line each, in the form of errors, above the progress bar."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tqdm.auto import tqdm


class _AboveBars(logging.Handler):
    """A handler that writes to standard error without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def messages() -> Iterator[None]:
    """Show the package's warnings as "vit-cls: warning: ..." while the block runs, and nowhere else."""
    handler = _AboveBars(logging.WARNING)
    handler.setFormatter(logging.Formatter("vit-cls: warning: %(message)s"))
    logger = logging.getLogger("modeling_vit_cls")
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)


def no_bars_in_files() -> None:
    """Disable the progress bars of `datasets` if there is no terminal. Other bars are disabled by themselves."""
    with suppress(ImportError):  # datasets is optional; where it is needed, the error names the extra
        import datasets

        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
