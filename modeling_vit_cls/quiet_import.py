"""Imports transformers without its remark that PyTorch is missing, which nothing here needs; the environment stays."""

import os
import sys

_NAME = "TRANSFORMERS_NO_ADVISORY_WARNINGS"


def import_transformers() -> None:
    """Import transformers, if nobody has yet."""
    if "transformers" in sys.modules or _NAME in os.environ:
        return
    os.environ[_NAME] = "1"
    try:
        import transformers  # noqa: F401
    finally:
        del os.environ[_NAME]
