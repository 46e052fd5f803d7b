"""Stores that cannot be reached say in one line why: a package that is missing, a scheme, no answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fsagn_onnx.data.images import list_images
from fsagn_onnx.data.store import Store, file_system
from fsagn_onnx.errors import ImageError, OutputError, UsageError

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("url", ["az://container/folder", "abfs://container/folder", "nothing://host/folder"])
def test_without_fsspec_the_error_says_what_to_install(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=rf"^{url} needs fsspec \(.*\): pip install 'fsagn-onnx\[scale\]'$"):
        file_system(url)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ImportError("Install adlfs to access Azure"), "Install adlfs to access Azure"),
        (ValueError("Protocol not known: az"), "Protocol not known: az"),
        (OSError("no library\nof the system"), "no library of the system"),
    ],
)
def test_what_fsspec_raises_is_one_line(problem: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core = pytest.importorskip("fsspec").core

    def refuse(url: str) -> Any:
        raise problem

    monkeypatch.setattr(core, "url_to_fs", refuse)
    with pytest.raises(UsageError) as told:
        file_system("az://container/folder")
    assert str(told.value) == f"az://container/folder: {said}"


def test_a_store_that_does_not_answer_says_how_to_go_on(tmp_path: Path) -> None:
    class Silent:
        def get_file_info(self, name: str) -> Any:
            raise OSError("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation")

    store = Store(tmp_path)
    store._folder, store._system, store._path = None, Silent(), "bucket/run"
    with pytest.raises(OutputError, match=r"HTTP status 503.*; go on with --resume$"):
        store.has("rows/part")


@pytest.mark.parametrize("url", ["gs://bucket/pictures", "s3://bucket/one.png"])
def test_what_lies_in_a_store_is_no_file(url: str) -> None:
    with pytest.raises(ImageError, match=rf"^'{url}' is no file: what lies in a store is read with --cluster"):
        list(list_images([url]))


def test_google_s_store_is_asked_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import fs

    asked: dict[str, Any] = {}
    monkeypatch.setattr(fs, "GcsFileSystem", lambda **told: asked.update(told) or "system", raising=False)
    assert file_system("gs://bucket/folder/") == ("system", "bucket/folder")
    assert set(asked) == {"retry_time_limit"}
    assert asked["retry_time_limit"].total_seconds() < 60
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9023")
    file_system("gcs://bucket/folder")
    assert (asked["scheme"], asked["endpoint_override"], asked["anonymous"]) == ("http", "127.0.0.1:9023", True)
