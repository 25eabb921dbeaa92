"""The Merkle tree: the definitions of RFC 6962 word for word, and verifiers that take exactly one proof."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import DigestDiffers, UsageError
from studbook.ledger.merkle import EMPTY, Tree, leaf_hash, verify_consistency, verify_inclusion

SIZE = 70
ENTRIES = [b"entry %d" % n for n in range(SIZE)]
# The tree of eight leaves that certificate transparency uses as an example, and roots of its first n leaves.
KNOWN_LEAVES = [bytes.fromhex(x) for x in ("", "00", "10", "2021", "3031", "40414243")]
KNOWN_LEAVES += [bytes.fromhex("5051525354555657"), bytes.fromhex("606162636465666768696a6b6c6d6e6f")]
KNOWN_ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(ENTRIES)


def mth(entries: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written there."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


def path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), mth(entries[k:])]
    return [*path(m - k, entries[k:]), mth(entries[:k])]


def subproof(m: int, entries: Sequence[bytes], whole: bool) -> list[bytes]:
    """RFC 6962 section 2.1.2."""
    if m == len(entries):
        return [] if whole else [mth(entries)]
    k = split(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], whole), mth(entries[k:])]
    return [*subproof(m - k, entries[k:], False), mth(entries[:k])]


def split(n: int) -> int:
    return max(k for k in (1 << e for e in range(40)) if k < n)


def refuses_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    with pytest.raises(DigestDiffers) as caught:
        verify_inclusion(leaf, index, size, proof, root, "here")
    assert (caught.value.reason, caught.value.where) == ("ledger.inclusion", "here")


def refuses_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    with pytest.raises(DigestDiffers) as caught:
        verify_consistency(old, old_root, new, new_root, proof, "here")
    assert (caught.value.reason, caught.value.where) == ("ledger.consistency", "here")


@pytest.mark.parametrize("size", KNOWN_ROOTS)
def test_roots_are_those_that_are_known(size: int) -> None:
    assert Tree(KNOWN_LEAVES[:size]).root().hex() == KNOWN_ROOTS[size]


def test_roots_at_every_size_are_those_of_the_definition(tree: Tree) -> None:
    assert tree.root(0) == EMPTY == Tree().root()
    for size in range(SIZE + 1):
        assert tree.root(size) == mth(ENTRIES[:size]) == Tree(ENTRIES[:size]).root()


def test_proofs_of_every_entry_and_size_are_those_of_the_definition_and_verify(tree: Tree) -> None:
    for size in range(1, SIZE + 1):
        for index in range(size):
            proof = tree.inclusion(index, size)
            assert proof == path(index, ENTRIES[:size])
            verify_inclusion(leaf_hash(ENTRIES[index]), index, size, proof, tree.root(size))


def test_proofs_between_every_two_sizes_are_those_of_the_definition_and_verify(tree: Tree) -> None:
    for new in range(SIZE + 1):
        for old in range(new + 1):
            proof = tree.consistency(old, new)
            assert proof == (subproof(old, ENTRIES[:new], True) if old else [])
            verify_consistency(old, tree.root(old), new, tree.root(new), proof)


def test_a_proof_of_inclusion_with_a_node_more_or_less_or_changed_is_refused(tree: Tree) -> None:
    for size in range(1, 34):
        root = tree.root(size)
        for index in range(size):
            leaf, proof = leaf_hash(ENTRIES[index]), tree.inclusion(index, size)
            for extra in (leaf, root, EMPTY, *proof[:1]):
                refuses_inclusion(leaf, index, size, [*proof, extra], root)
                refuses_inclusion(leaf, index, size, [extra, *proof], root)
            for n, node in enumerate(proof):
                refuses_inclusion(leaf, index, size, proof[:n] + proof[n + 1 :], root)
                refuses_inclusion(leaf, index, size, [*proof[:n], bytes(32), *proof[n + 1 :]], root)
                refuses_inclusion(leaf, index, size, [*proof[:n], node[:-1], *proof[n + 1 :]], root)


def test_a_proof_of_inclusion_says_nothing_about_another_entry_or_size(tree: Tree) -> None:
    size = 21
    for index in range(size):
        leaf, proof, root = leaf_hash(ENTRIES[index]), tree.inclusion(index, size), tree.root(size)
        for other in {-1, *range(size + 1)} - {index}:
            refuses_inclusion(leaf, other, size, proof, root)
        refuses_inclusion(leaf_hash(ENTRIES[index + 1]), index, size, proof, root)
        refuses_inclusion(leaf, index, size, proof, tree.root(size + 1))


def test_a_proof_of_consistency_with_a_node_more_or_less_or_changed_is_refused(tree: Tree) -> None:
    for new in range(34):
        for old in range(new + 1):
            roots, proof = (tree.root(old), tree.root(new)), tree.consistency(old, new)
            for extra in (*roots, EMPTY):
                refuses_consistency(old, roots[0], new, roots[1], [*proof, extra])
                refuses_consistency(old, roots[0], new, roots[1], [extra, *proof])
            for n in range(len(proof)):
                refuses_consistency(old, roots[0], new, roots[1], proof[:n] + proof[n + 1 :])
                refuses_consistency(old, roots[0], new, roots[1], [*proof[:n], bytes(32), *proof[n + 1 :]])
                refuses_consistency(old, roots[0], new, roots[1], [*proof[:n], b"", *proof[n + 1 :]])


def test_a_tree_with_another_entry_anywhere_does_not_continue_the_old_one(tree: Tree) -> None:
    new = 37
    for old in range(1, new):
        for changed in range(old):
            forked = Tree([*ENTRIES[:changed], b"forged", *ENTRIES[changed + 1 : new]])
            proof = forked.consistency(old, new)
            refuses_consistency(old, tree.root(old), new, forked.root(new), proof)


def test_equal_sizes_take_equal_roots_and_the_empty_tree_its_own_root(tree: Tree) -> None:
    refuses_consistency(5, tree.root(5), 5, tree.root(6), [])
    refuses_consistency(0, tree.root(5), 5, tree.root(5), [])
    refuses_consistency(6, tree.root(6), 5, tree.root(5), [])
    verify_consistency(0, EMPTY, 5, tree.root(5), [])


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_tree_that_grew_and_was_cut_in_any_order_is_the_tree_of_its_entries(sizes: list[int]) -> None:
    grown, held = Tree(), []
    for size in sizes:
        if size < len(held):
            grown.cut(size)
            held = held[:size]
        else:
            more = [b"%d at %d" % (n, size) for n in range(len(held), size)]
            grown.extend(more)
            held += more
        assert grown.size == len(held)
        assert grown.root() == mth(held)


@pytest.mark.parametrize(
    "ask",
    [
        lambda t: t.root(SIZE + 1),
        lambda t: t.root(-1),
        lambda t: t.cut(SIZE + 1),
        lambda t: t.inclusion(5, 5),
        lambda t: t.inclusion(-1),
        lambda t: t.inclusion(0, SIZE + 1),
        lambda t: t.consistency(6, 5),
        lambda t: t.consistency(-1, 5),
        lambda t: t.consistency(0, SIZE + 1),
    ],
)
def test_what_the_tree_does_not_hold_is_not_proven(tree: Tree, ask: object) -> None:
    with pytest.raises(UsageError) as caught:
        ask(tree)  # type: ignore[operator]
    assert caught.value.reason in ("ledger.size", "ledger.index")


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_a_tree_grown_from_leaf_hashes_is_the_tree_of_the_entries(entries: list[bytes]) -> None:
    whole, hashed = Tree(entries), Tree()
    hashed.extend_hashes(leaf_hash(entry) for entry in entries)
    assert hashed.size == len(entries)
    assert [hashed.root(n) for n in range(len(entries) + 1)] == [whole.root(n) for n in range(len(entries) + 1)]
    assert [hashed.leaf(n) for n in range(len(entries))] == [leaf_hash(entry) for entry in entries]
    with pytest.raises(UsageError):
        hashed.leaf(len(entries))
