"""Names that nothing in a graph has yet."""

from __future__ import annotations

from collections.abc import Container, Iterable

__all__ = ["FreshNames"]


class FreshNames:
    """Gives names out, each one once.

    It goes on counting where it stopped: thousands of nodes of one kind would else be counted through for each other.

    Args:
        taken: names that the graph has.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._numbers: dict[str, int] = {}

    def like(self, stem: str, besides: Container[str] = ()) -> str:
        """The stem itself, or with the first number that makes it new; taken from now on.

        Args:
            stem: what the name begins with.
            besides: names that are taken too.
        """
        number = self._numbers.get(stem, 0)
        name = f"{stem}_{number}" if number else stem
        while name in self._taken or name in besides:
            number += 1
            name = f"{stem}_{number}"
        self._numbers[stem] = number
        self._taken.add(name)
        return name
