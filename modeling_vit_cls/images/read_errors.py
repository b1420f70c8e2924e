"""Why `datasets` could not read a dataset, in one line."""

from huggingface_hub import get_token

from ..errors import one_line, without_token
from ..install import needs

try:
    from datasets.exceptions import DatasetsError
    from datasets.table import CastError
except ImportError as error:
    raise needs("datasets", "to load images", "train") from error

_LENGTH = 300  # characters


def reason_of(error: BaseException) -> str:
    """The type and the text of any error of `datasets`, or of its cause, which says more; without a token."""
    while isinstance(error, DatasetsError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, CastError):  # its own text is two whole schemas
        return f"the columns of its files differ: {error.details().rstrip('.')}"
    text = without_token(one_line(error), get_token())
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."
