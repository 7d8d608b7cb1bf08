"""Makes inputs that nobody meant to send from some that somebody did."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_TELLING = [b"\x00", b"\xff", b"\x7f", b"\x80", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\n\n", b".", b"="]
_TELLING += [b"/", b"%00", b"{}", b"null", b"1e999", b"-1", b"\x00" * 16, b"\xc0\x80", "\u2014 \ud7ff\u0430".encode()]
SIZE_MAX = 1 << 14


def mutate(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One of the corpus, changed in one to four ways."""
    data = bytearray(corpus[int(chance.random() * len(corpus))])
    for _ in range(1 + int(chance.random() * 4)):
        way = _WAYS[int(chance.random() * len(_WAYS))]
        way(chance, data, corpus)
    return bytes(data[:SIZE_MAX])


def _at(chance: random.Random, data: bytearray) -> int:
    return int(chance.random() * len(data)) if data else 0


def _flip(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[_at(chance, data)] ^= 1 << chance.getrandbits(3)


def _set(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[_at(chance, data)] = chance.getrandbits(8)


def _count(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A length, perhaps, that is off by a little."""
    if data:
        at = _at(chance, data)
        data[at] = (data[at] + chance.choice((-2, -1, 1, 2))) & 0xFF


def _cut(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_at(chance, data) :]


def _remove(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _at(chance, data)
    del data[at : at + 1 + int(chance.random() * 16)]


def _repeat(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _at(chance, data)
    piece = data[at : at + 1 + int(chance.random() * 64)]
    data[at:at] = piece * (1 + chance.getrandbits(2))


def _insert(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _at(chance, data)
    data[at:at] = _TELLING[int(chance.random() * len(_TELLING))]


def _splice(chance: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    other = corpus[int(chance.random() * len(corpus))]
    if other:
        start = int(chance.random() * len(other))
        data[_at(chance, data) :] = other[start:]


_WAYS: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip, _flip, _set, _set, _count, _count, _cut, _remove, _repeat, _insert, _insert, _splice,
)  # fmt: skip
