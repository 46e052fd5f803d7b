"""What an object store that is busy costs: another request, not the run."""

from __future__ import annotations

import pytest

from fsagn_onnx.data import store
from fsagn_onnx.errors import ImageError


class Busy:
    """A file system whose every answer comes after some refusals."""

    def __init__(self, content: bytes, refusals: int, error: str) -> None:
        self.content, self.refusals, self.error, self.left = content, refusals, error, refusals

    def _refuse(self) -> None:
        if self.left:
            self.left -= 1
            raise OSError(self.error)
        self.left = self.refusals

    def open_input_file(self, path: str) -> Busy:
        self._refuse()
        return self

    def read_at(self, count: int, place: int) -> bytes:
        self._refuse()
        return self.content[place : place + count]

    def size(self) -> int:
        return len(self.content)

    def close(self) -> None:
        pass


BUSY = (
    "AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate.",
    "AWS Error INTERNAL_FAILURE during GetObject operation: Failed to flush response stream",
    "When reading information for key 'a': AWS Error UNKNOWN (HTTP status 503) during HeadObject operation",
)


@pytest.mark.parametrize("error", BUSY)
def test_a_busy_store_is_asked_again(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 1024
    busy = Busy(content, store.TRIES - 1, error)
    monkeypatch.setattr(store, "file_system", lambda url: (busy, "b/a"))
    monkeypatch.setattr(store, "FIRST_PAUSE", 0.0)
    with store.open_in_store("s3://b/a") as file:
        assert file.read() == content
        file.seek(-300, 2)
        assert (file.tell(), file.read(44), file.read(9999)) == (len(content) - 300, content[-300:-256], content[-256:])
    assert store.read_content("s3://b/a") == content


@pytest.mark.parametrize(
    ("error", "refusals"), [(BUSY[0], store.TRIES), ("AWS Error ACCESS_DENIED during GetObject", 1)]
)
def test_a_store_that_stays_busy_or_denies_is_an_error(
    error: str, refusals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Busy(b"x", refusals, error)
    monkeypatch.setattr(store, "file_system", lambda url: (busy, "b/a"))
    monkeypatch.setattr(store, "FIRST_PAUSE", 0.0)
    with pytest.raises(ImageError, match=error[:20]):
        store.read_content("s3://b/a")
    assert busy.left == 0
