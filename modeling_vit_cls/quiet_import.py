"""Imports transformers without its remark that PyTorch is missing, which nothing here needs; the environment stays."""

import os

_NAME = "TRANSFORMERS_NO_ADVISORY_WARNINGS"

_before = os.environ.get(_NAME)
os.environ[_NAME] = "1"
try:  # the remark is made when the package is imported, and again when a class is first taken from it
    from transformers import AutoConfig, AutoImageProcessor, BaseImageProcessor  # noqa: F401
finally:
    if _before is None:
        del os.environ[_NAME]
    else:
        os.environ[_NAME] = _before
