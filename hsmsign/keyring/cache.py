"""The names that were asked for lately, resolved."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from hsmsign.keyring.values import ResolvedKey, version_name


class ResolvedCache:
    """The `size` names that were used last. Belongs to one event loop."""

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        self._names: OrderedDict[str, ResolvedKey] = OrderedDict()
        self.generation = 0
        """Goes up with every `forget`: what was read before that must not be put in after it."""

    def get(self, name: str) -> ResolvedKey | None:
        """What `name` stands for, if that is known."""
        found = self._names.get(name)
        if found is not None:
            self._names.move_to_end(name)
        return found

    def put(self, name: str, key: ResolvedKey, generation: int) -> None:
        """Remember what was read when `generation` was the current one."""
        if generation != self.generation:
            return
        self._names[name] = key
        if len(self._names) > self._size:
            self._names.popitem(last=False)

    def forget(self, key: str, numbers: Iterable[int]) -> None:
        """A key changed: forget it and these versions of it."""
        self.generation += 1
        self._names.pop(f"keys/{key}", None)
        for number in numbers:
            self._names.pop(version_name(key, number), None)

    def __len__(self) -> int:
        return len(self._names)
