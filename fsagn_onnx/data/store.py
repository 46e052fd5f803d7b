"""Folders of results on a disk or in an object store: what is written there appears whole or not at all."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from ..errors import ImageError, OutputError, UsageError
from .files import PART, make_folder, write_file
from .images import MAX_FILE_BYTES
from .opening import is_url, open_regular

TRIES: Final = 6
"""Requests of an object store that answers 503 or not at all, before that is an error."""

FIRST_PAUSE: Final = 0.1
"""Seconds before a busy store is asked again; twice as long each time."""

GIVE_UP: Final = 30
"""Seconds that a request of Google's store is repeated for, credentials included."""

PIECE: Final = 64 * 1024
"""Bytes that are read of a file of a store at once, at least."""

_BUSY: Final = re.compile(
    r"SLOW_?DOWN|HTTP status (429|5\d\d)|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|NETWORK_CONNECTION|TIMEOUT|THROTTL", re.I
)

Found = TypeVar("Found")


def patiently(request: Callable[[], Found]) -> Found:
    """What a request of a store gives; a store that is busy is asked again, up to `TRIES` times.

    pyarrow asks again too, but not when a refusal is longer than the few bytes that were wanted, nor once a process
    has met many refusals.

    Args:
        request: may be done more than once.

    Raises:
        OSError: any other error at once, the last refusal at the end.
    """
    for attempt in range(TRIES - 1):
        try:
            return request()
        except OSError as error:
            if isinstance(error, FileNotFoundError) or not _BUSY.search(str(error)):
                raise
        time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.0))
    return request()


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it: s3, gs and what else pyarrow has, else fsspec.

    Args:
        url: ``scheme://bucket/path``. Keys, region and endpoint of s3 come from its usual places (``AWS_...``), those
            of gs likewise (``GOOGLE_APPLICATION_CREDENTIALS``, ``STORAGE_EMULATOR_HOST``); ``gs://anonymous@bucket``
            is asked without any.

    Raises:
        UsageError: no such scheme, or a package for it is missing.
    """
    from pyarrow import ArrowException, fs

    scheme, _, path = url.partition("://")
    try:
        if scheme.lower() == "s3":
            return _s3(path.partition("/")[0]), path.rstrip("/")
        if scheme.lower() in ("gs", "gcs") and not {"@", "?"} & set(path):  # these tell pyarrow more than a place
            return _gcs(), path.rstrip("/")
        if scheme.lower() not in ("az", "abfs"):
            return tuple(fs.FileSystem.from_uri(url.rstrip("/")))
    except (ArrowException, ValueError, OSError):
        pass  # fsspec may know it
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(f"{url} needs fsspec ({error}): pip install 'fsagn-onnx[scale]'") from error
    try:
        found, path = fsspec.core.url_to_fs(url.rstrip("/"))
    except (ValueError, ImportError, OSError) as error:
        raise UsageError(f"{url}: {' '.join(str(error).split())[:300]}") from error
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path


class _PatientFile(io.RawIOBase):
    """A file of a store, whose pieces are asked for again where it is busy."""

    def __init__(self, file: Any) -> None:
        self._file, self._place, self._size = file, 0, int(file.size())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._place)
        if wanted <= 0:
            return 0
        content = patiently(lambda: self._file.read_at(wanted, self._place))
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def open_in_store(url: str) -> io.BufferedReader:
    """A file of a store for reading at any place, in pieces of 64 KiB or more.

    Raises:
        FileNotFoundError: there is none.
        OSError: the store does not answer.
        UsageError: no such scheme.
    """
    system, path = file_system(url)
    return io.BufferedReader(_PatientFile(patiently(lambda: system.open_input_file(path))), PIECE)


@cache
def _s3(bucket: str) -> Any:
    """S3, asked more patiently than pyarrow does, at the endpoint that the environment names."""
    from pyarrow import fs

    told: dict[str, Any] = {"retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=TRIES)}
    told["allow_delayed_open"] = True  # a small object is one request
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        told |= {"endpoint_override": host, "scheme": scheme or "https"}
    elif not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        told["region"] = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(**told)


def _gcs() -> Any:
    """Google's store, given up on sooner than pyarrow does (15 minutes), at the endpoint that the environment names."""
    from pyarrow import fs

    told: dict[str, Any] = {"retry_time_limit": timedelta(seconds=GIVE_UP)}
    endpoint = os.environ.get("STORAGE_EMULATOR_HOST")
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        told |= {"endpoint_override": host.rstrip("/"), "scheme": scheme or "http", "anonymous": True}
    return fs.GcsFileSystem(**told)


def read_content(name: str) -> bytes:
    """The content of a picture, from a file or a store.

    Raises:
        ImageError: it cannot be read, is no regular file or too large.
    """
    try:
        if is_url(name):
            with open_in_store(name) as file:
                content = file.read(MAX_FILE_BYTES + 1)
                size = len(content)
        else:
            with open_regular(name) as stream:
                content = stream.read(MAX_FILE_BYTES + 1)
                size = len(content)
    except (OSError, ValueError) as error:
        raise ImageError(f"{name!r} cannot be read: {_reason(error)}") from error
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{name!r} has {size} bytes, more than the limit of {MAX_FILE_BYTES}")
    return bytes(content)


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(text.split())[:300]


class Store:
    """A folder of results.

    Attributes:
        where: the folder, or its URL.

    Args:
        where: a folder, which is made if it is not there, or a URL.

    Raises:
        OutputError: the folder cannot be made.
        UsageError: no such scheme.
    """

    def __init__(self, where: str | Path) -> None:
        self.where = str(where)
        self._folder = None if is_url(self.where) else Path(where)
        if self._folder is None:
            self._system, self._path = file_system(self.where)
        else:
            make_folder(self._folder)

    @property
    def folder(self) -> Path | None:
        """The folder on a disk; None in a store."""
        return self._folder

    def at(self, name: str) -> str:
        """What to call a file of the folder in messages."""
        return f"{self.where.rstrip('/')}/{name}" if name else self.where

    def write(self, name: str, content: bytes) -> None:
        """Write a file: on a disk under a temporary name that is renamed, in a store as one object.

        Raises:
            OutputError: it cannot be written; nothing is left of it.
        """
        if self._folder is not None:
            path = self._folder / name
            make_folder(path.parent)
            write_file(path, [content])
            return

        def put() -> None:
            with self._system.open_output_stream(f"{self._path}/{name}") as stream:
                stream.write(content)

        try:
            patiently(put)
        except OSError as error:
            raise OutputError(f"cannot write {self.at(name)}: {_reason(error)}; go on with --resume") from error

    def has(self, name: str) -> bool:
        """Whether there is a file or folder of that name.

        Raises:
            OutputError: the store does not answer.
        """
        if self._folder is not None:
            return (self._folder / name).exists()
        try:
            return bool(patiently(lambda: self._system.get_file_info(f"{self._path}/{name}")).type.name != "NotFound")
        except OSError as error:
            raise OutputError(f"cannot read {self.at(name)}: {_reason(error)}; go on with --resume") from error

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none.

        Raises:
            OutputError: it cannot be read.
        """
        try:
            with self.open(name) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """A file for reading at any place.

        Raises:
            FileNotFoundError: there is none.
            OutputError: it cannot be read.
        """
        try:
            if self._folder is not None:
                with (self._folder / name).open("rb") as file:
                    yield file
            else:
                with open_in_store(self.at(name)) as file:
                    yield file
        except FileNotFoundError:
            raise
        except OSError as error:
            raise OutputError(f"cannot read {self.at(name)}: {_reason(error)}") from error

    def names(self, inside: str = "") -> list[str]:
        """Names of the files and folders in a folder, sorted; half-written ones left out; none where it is not there.

        Raises:
            OutputError: it cannot be listed.
        """
        try:
            if self._folder is not None:
                folder = self._folder / inside
                found = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
            else:
                from pyarrow import fs

                selector = fs.FileSelector(f"{self._path}/{inside}".rstrip("/"), allow_not_found=True)
                found = [info.base_name for info in patiently(lambda: self._system.get_file_info(selector))]
        except OSError as error:
            raise OutputError(f"cannot read {self.at(inside)}: {_reason(error)}") from error
        return sorted(name for name in found if not name.endswith(PART))

    def remove(self, name: str) -> None:
        """Remove a file or a folder, where it is there.

        Raises:
            OutputError: it cannot be removed.
        """
        try:
            if self._folder is not None:
                path = self._folder / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
                return
            path_in_store = f"{self._path}/{name}"
            kind = patiently(lambda: self._system.get_file_info(path_in_store)).type.name
            if kind == "Directory":
                patiently(lambda: self._system.delete_dir(path_in_store))
            elif kind == "File":
                patiently(lambda: self._system.delete_file(path_in_store))
        except OSError as error:
            raise OutputError(f"cannot remove {self.at(name)}: {_reason(error)}") from error

    def remove_parts(self, inside: str) -> None:
        """Remove what killed runs left half-written in a folder; a store shows no half objects."""
        if self._folder is not None:
            for path in (self._folder / inside).glob(f".*{PART}"):
                path.unlink(missing_ok=True)
