"""Merkle trees: known answers, and proofs that hold for what is there and for nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmsign.audit import merkle

# The inputs and roots that implementations of RFC 6962 test with (certificate-transparency, merkle_tree_test).
INPUTS = [bytes.fromhex(one) for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
INPUTS.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaves(count: int) -> list[bytes]:
    return [merkle.leaf(b"%d" % number) for number in range(count)]


@pytest.mark.parametrize("count", range(1, 9))
def test_roots_are_those_of_rfc_6962(count: int) -> None:
    assert merkle.root([merkle.leaf(one) for one in INPUTS[:count]]).hex() == ROOTS[count - 1]


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    assert merkle.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.integers(1, 70), st.data())
def test_every_leaf_is_proved_and_no_other(count: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, count - 1))
    known = leaves(count)
    root, beside = merkle.root(known), merkle.path(index, known)
    assert merkle.is_included(known[index], index, count, beside, root)
    assert not merkle.is_included(merkle.leaf(b"x"), index, count, beside, root)
    for other in {(index + 1) % count, index - 1, count} - {index}:
        assert not merkle.is_included(known[index], other, count, beside, root)
    assert not merkle.is_included(known[index], index, count, [*beside, bytes(32)], root)
    for at in range(len(beside)):
        changed = [*beside]
        changed[at] = bytes(32)
        assert not merkle.is_included(known[index], index, count, changed, root)
        assert not merkle.is_included(known[index], index, count, beside[:at], root)


@given(st.integers(0, 6), st.integers(0, 7))
def test_full_subtrees_are_as_good_as_their_leaves(subtrees: int, rest: int) -> None:
    known = leaves(subtrees * 8 + rest)
    edge = merkle.Frontier()
    for number in range(subtrees):
        edge.add(merkle.root(known[number * 8 : number * 8 + 8]), 3)
    for one in known[subtrees * 8 :]:
        edge.add(one)
    assert (edge.size, edge.root()) == (len(known), merkle.root(known))
