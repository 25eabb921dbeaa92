"""The same trees and proofs, made and checked by an independent library."""

from __future__ import annotations

import pytest

from studbook.errors import DigestDiffers
from studbook.ledger.merkle import Tree, leaf_hash, verify_consistency, verify_inclusion

pymerkle = pytest.importorskip("pymerkle")
pytestmark = pytest.mark.train

SIZES = range(1, 131)
ENTRIES = [b"line %d" % n for n in range(SIZES[-1])]


@pytest.fixture(scope="module")
def ours() -> Tree:
    return Tree(ENTRIES)


@pytest.fixture(scope="module")
def theirs() -> object:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in ENTRIES:
        tree.append_entry(entry)
    return tree


def test_roots_of_all_sizes_are_the_same(ours: Tree, theirs: object) -> None:
    for size in SIZES:
        assert theirs.get_root(size) == ours.root(size)  # type: ignore[attr-defined]


def test_each_accepts_the_others_proofs_of_inclusion(ours: Tree, theirs: object) -> None:
    for size in SIZES:
        for index in range(0, size, 1 + size // 20):
            leaf, root = leaf_hash(ENTRIES[index]), ours.root(size)
            proof = theirs.prove_inclusion(index + 1, size)  # type: ignore[attr-defined]
            pymerkle.verify_inclusion(leaf, root, proof)
            # Its path begins with the leaf itself.
            assert proof.path[0] == leaf
            verify_inclusion(leaf, index, size, proof.path[1:], root)
            assert proof.path[1:] == ours.inclusion(index, size)


def test_both_find_the_same_trees_consistent_and_the_same_ones_not(ours: Tree, theirs: object) -> None:
    """Its proofs of consistency have a form of their own; what can be compared is what they say of our roots."""
    forked = Tree([*ENTRIES[:1], b"forged", *ENTRIES[2:]])
    for new in SIZES:
        for old in range(1, new + 1, 1 + new // 20):
            proof = theirs.prove_consistency(old, new)  # type: ignore[attr-defined]
            pymerkle.verify_consistency(ours.root(old), ours.root(new), proof)
            verify_consistency(old, ours.root(old), new, ours.root(new), ours.consistency(old, new))
            if 1 < old < new:
                with pytest.raises(pymerkle.InvalidProof):
                    pymerkle.verify_consistency(forked.root(old), ours.root(new), proof)
                with pytest.raises(DigestDiffers):
                    verify_consistency(old, forked.root(old), new, ours.root(new), ours.consistency(old, new))
