"""Names of a model's classes from a file that the user gives, where the model itself does not carry them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..errors import ModelError
from .description import labels_in_any, parsed_yaml

__all__ = ["read_class_names"]

MAX_BYTES: Final = 8 * 2**20
"""Largest file of class names."""

YAML: Final = (".yml", ".yaml")


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Names of classes in the order of their numbers.

    A text file with one name on each line; or JSON or YAML: a list of names, an object from number to name or from
    name to number, or another program's description that holds one (``labels``, ``names``, ``classes``, ``id2label``,
    ``label_names``, ``label_list``).

    Args:
        path: The file; UTF-8, with or without a byte order mark.

    Returns:
        At least one name.

    Raises:
        ModelError: the file cannot be read, is too large, or holds no names.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"class names: {path} is no regular file")
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"class names: {path} has more than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            found: object = json.loads(text)
        elif path.suffix.lower() in YAML:
            found = parsed_yaml(path, text)
        else:
            found = [line.strip() for line in text.splitlines() if line.strip()]
    except OSError as error:
        raise ModelError(f"class names: {path} cannot be read: {error.strerror or error}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"class names: {path} is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"class names: {path} is no UTF-8 text: {error.reason}") from error
    names = labels_in_any(found)
    if not names or "\0" in "".join(names):
        raise ModelError(
            f"class names: {path} holds none: expected one name on each line, or JSON or YAML with a list of names, "
            "or an object from number to name"
        )
    return names


def given_names(labels: str | Path | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names as they come from a caller: a file, or the names themselves.

    Raises:
        ModelError: see `read_class_names`; a name is no text, or there are none.
    """
    if labels is None:
        return None
    if isinstance(labels, str | Path):
        return read_class_names(labels)
    names = tuple(labels)
    if not names or not all(isinstance(name, str) for name in names):
        raise ModelError("class names: expected a file or a sequence of texts, one for each class")
    return names
