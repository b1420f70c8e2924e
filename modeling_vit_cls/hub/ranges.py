"""Parts of a file on the Hub, by range requests; no more bytes are accepted than were asked for."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from huggingface_hub import constants, utils
from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]  # requests' in 0.36, then httpx's
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from ..errors import CheckpointError

_MAX_READ = 8_000_000  # bytes of one file
_RETRIES = 2


class RemoteFile:
    """A file on the Hub: its address, its size in bytes, and the number of bytes that were read of it."""

    def __init__(self, url: str, name: str, size: int, token: str | bool | None):
        self.url, self.name, self.size, self.bytes_read = url, name, size, 0
        self._headers = {**build_hf_headers(token=token), "Accept-Encoding": "identity"}

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`.

        A server that ignores ranges sends the file from its beginning; what is left after `stop` is not received. The
        rest of an answer that breaks off is asked for. Raises CheckpointError if the server gives other bytes than
        these, or too many would be read; errors of huggingface_hub and of the connection go through.
        """
        stop, content = min(stop, self.size), b""
        for _ in range(1 + _RETRIES):
            if stop > start + len(content):
                content += self._read_once(start + len(content), stop)
        if len(content) < stop - start:
            raise CheckpointError(f"{self.name}: the server sent {len(content):,} of {stop - start:,} bytes; try again")
        return content

    def _read_once(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`, or fewer if the answer breaks off."""
        with _stream(self.url, {**self._headers, "Range": f"bytes={start}-{stop - 1}"}) as response:
            hf_raise_for_status(response)
            first = self._first_byte(response)
            if first > start:
                raise CheckpointError(f"{self.name}: the server sent byte {first:,} first, not {start:,}; try again")
            if self.bytes_read + stop - first > _MAX_READ:
                reason = "the server ignores range requests" if first < start else "its headers are too long"
                remedy = "download the checkpoint to check it"
                raise CheckpointError(f"{self.name}: {reason}, more than {_MAX_READ:,} bytes would be read; {remedy}")
            content = _take(response, stop - first)
        self.bytes_read += len(content)
        return content[start - first :]

    def _first_byte(self, response: Any) -> int:
        """The position in the file of an answer's first byte. Raises CheckpointError for a file of another size."""
        if response.status_code == 206:
            match = re.fullmatch(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})", response.headers.get("Content-Range", ""))
            if match is None:
                raise CheckpointError(f"{self.name}: the server did not tell which part of the file it sent; try again")
            first, size = int(match[1]), int(match[2])
        else:
            first, size = 0, int(response.headers.get("Content-Length", self.size))
        if size != self.size:
            problem = f"has {size:,} bytes on the server, but {self.size:,} in the repository's list of files"
            raise CheckpointError(f"{self.name}: {problem}; try again")
        return first


class RangeReader(io.RawIOBase):
    """A remote file as a file to read and seek in. What was read is also written to the same place of `copy`.

    `error` is that of the connection, if any: zipfile takes it for a damaged file.
    """

    def __init__(self, remote: RemoteFile, copy: BinaryIO):
        self._remote, self._copy, self._position = remote, copy, 0
        self.error: Exception | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` from the beginning, the position or the end; returns the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._remote.size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into `buffer`; returns their number."""
        try:
            content = self._remote.read(self._position, self._position + len(buffer))
        except Exception as error:
            self.error = error
            raise
        buffer[: len(content)] = content
        self._copy.seek(self._position)
        self._copy.write(content)
        self._position += len(content)
        return len(content)


@contextmanager
def _stream(url: str, headers: dict[str, str]) -> Iterator[Any]:
    """The response to a GET request, whose body is still unread; what is left of it at the end is not received."""
    options: dict[str, Any] = {"headers": headers, "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT}
    stream: Any
    if hasattr(utils, "http_stream_backoff"):
        stream = utils.http_stream_backoff("GET", url, max_retries=_RETRIES, follow_redirects=True, **options)
    else:  # huggingface_hub 0.36
        stream = utils.http_backoff("GET", url, max_retries=_RETRIES, stream=True, **options)
    with stream as response:
        yield response


def _take(response: Any, size: int) -> bytes:
    """The first `size` bytes of a response, or fewer if it ends or breaks off before."""
    chunks, received = [], 0
    with suppress(HTTPError, OSError):
        for chunk in response.iter_bytes() if hasattr(response, "iter_bytes") else response.iter_content(65536):
            chunks.append(chunk)
            received += len(chunk)
            if received >= size:
                break
    return b"".join(chunks)[:size]
