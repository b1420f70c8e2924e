"""Imports transformers without its remark that PyTorch is missing, which nothing here needs; the environment stays."""

import os
import sys

_NAME = "TRANSFORMERS_NO_ADVISORY_WARNINGS"

if "transformers" not in sys.modules and _NAME not in os.environ:
    os.environ[_NAME] = "1"
    try:
        import transformers  # noqa: F401
    finally:
        del os.environ[_NAME]
