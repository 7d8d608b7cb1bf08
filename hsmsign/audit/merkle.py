"""Merkle tree hashing (RFC 6962, section 2.1; the proofs' check: RFC 9162, section 2.1.3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

EMPTY = hashlib.sha256(b"").digest()
HASH_SIZE = 32


def leaf(data: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\0" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of a tree that grows: enough for its root, a hash for each bit of its size."""

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        self.size = size
        self._nodes = list(nodes)

    def copy(self) -> Frontier:
        """One that grows by itself."""
        return Frontier(self.size, self._nodes)

    def add(self, hash: bytes, height: int = 0) -> None:
        """Append a leaf, or a full subtree of 2**height leaves; the size is a multiple of that."""
        rest = self.size >> height
        while rest & 1:
            hash = node(self._nodes.pop(), hash)
            rest >>= 1
        self._nodes.append(hash)
        self.size += 1 << height

    def root(self) -> bytes:
        """The root of the tree as it is now."""
        if not self._nodes:
            return EMPTY
        root = self._nodes[-1]
        for left in reversed(self._nodes[:-1]):
            root = node(left, root)
        return root


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over these hashes."""
    edge = Frontier()
    for one in leaves:
        edge.add(one)
    return edge.root()


def path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """What stands beside the way from a leaf to the root, the leaf's sibling first (RFC 6962, section 2.1.1)."""
    if len(leaves) <= 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*path(index, leaves[:split]), root(leaves[split:])]
    return [*path(index - split, leaves[split:]), root(leaves[:split])]


def is_included(hash: bytes, index: int, size: int, beside: Sequence[bytes], root: bytes) -> bool:
    """Whether a leaf with this hash is the one with this index in the tree of this size and root."""
    if not 0 <= index < size:
        return False
    at, last = index, size - 1
    for one in beside:
        if last == 0:
            return False
        if at & 1 or at == last:
            hash = node(one, hash)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            hash = node(hash, one)
        at >>= 1
        last >>= 1
    return last == 0 and hash == root
