"""An append-only Merkle tree over byte strings, and proofs about it.

Hashes are those of RFC 6962 section 2.1: SHA-256, a leaf is H(0x00 || entry), a node H(0x01 || left || right), and the
empty tree is H(""). Proofs are made as in RFC 6962 sections 2.1.1 and 2.1.2 and verified as in RFC 9162 sections 2.1.3.2
and 2.1.4.2, which say for every node of a proof where it belongs, so that none may be missing or left over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from studbook.errors import DigestDiffers, UsageError

__all__ = ["EMPTY", "HASH_BYTES", "Tree", "leaf_hash", "verify_consistency", "verify_inclusion"]

HASH_BYTES = 32
EMPTY = sha256(b"").digest()
_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """The 32-byte hash of one entry as a leaf (RFC 6962 section 2.1)."""
    return sha256(_LEAF + entry).digest()


class Tree:
    """A tree that grows at its right edge.

    The hashes of all complete subtrees are kept, one byte array a height, leaves first: 64 bytes an entry in all. The
    last of each is the compact range to which the next leaf is added, and every proof is read from them.

    Args:
        entries: What it holds at first.

    Attributes:
        size: Number of leaves.
    """

    def __init__(self, entries: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._levels: list[bytearray] = [bytearray()]
        self.extend(entries)

    def append(self, entry: bytes) -> None:
        """Add one entry: O(log n) hashes at most, two on average."""
        self.extend((entry,))

    def extend(self, entries: Iterable[bytes]) -> None:
        """Add entries in order."""
        hasher = sha256
        self.extend_hashes(hasher(_LEAF + entry).digest() for entry in entries)

    def extend_hashes(self, hashes: Iterable[bytes]) -> None:
        """Add entries of which only the leaf hashes are known, 32 bytes each, in order."""
        levels, hasher, size = self._levels, sha256, self.size
        leaves = levels[0]
        for node in hashes:
            leaves += node
            size += 1
            rest, height = size, 0
            while not rest & 1:
                node = hasher(_NODE + levels[height][-64:]).digest()
                rest >>= 1
                height += 1
                if height == len(levels):
                    levels.append(bytearray())
                levels[height] += node
        self.size = size

    def cut(self, size: int) -> None:
        """Keep the first ``size`` leaves.

        Raises:
            UsageError: if there are not that many.
        """
        self._check_size(size)
        for height, nodes in enumerate(self._levels):
            del nodes[(size >> height) * HASH_BYTES :]
        self.size = size

    def root(self, size: int | None = None) -> bytes:
        """The root over the first ``size`` leaves, all by default: 32 bytes.

        Raises:
            UsageError: if there are not that many leaves.
        """
        size = self.size if size is None else size
        self._check_size(size)
        return self._range(0, size) if size else EMPTY

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """The proof that leaf ``index`` is in the tree of the first ``size`` leaves (RFC 6962 section 2.1.1).

        Returns:
            Hashes of 32 bytes, from the leaf's sibling up to the root's child.

        Raises:
            UsageError: if there is no such leaf, or no such tree.
        """
        size = self.size if size is None else size
        self._check_size(size)
        if not 0 <= index < size:
            raise UsageError(f"entry {index} is not one of the first {size}", reason="ledger.index")
        start, end, path = 0, size, []
        while end - start > 1:
            middle = start + _split(end - start)
            left = index < middle
            path.append(self._range(middle, end) if left else self._range(start, middle))
            start, end = (start, middle) if left else (middle, end)
        return path[::-1]

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """The proof that the tree of ``new`` leaves continues the tree of ``old`` leaves (RFC 6962 section 2.1.2).

        Returns:
            Hashes of 32 bytes; none if the sizes are equal, or the old tree is empty.

        Raises:
            UsageError: if there is no such tree, or the old one is the larger one.
        """
        new = self.size if new is None else new
        self._check_size(new)
        if not 0 <= old <= new:
            raise UsageError(f"a tree of {new} entries does not continue one of {old}", reason="ledger.size")
        if old in (0, new):
            return []
        start, end, path = 0, new, []
        while old != end:
            middle = start + _split(end - start)
            left = old <= middle
            path.append(self._range(middle, end) if left else self._range(start, middle))
            start, end = (start, middle) if left else (middle, end)
        # The old tree's own root is known to whoever checks; any other subtree at its edge is not.
        return [*([self._range(start, end)] if start else []), *path[::-1]]

    def leaf(self, index: int) -> bytes:
        """The hash of one leaf, 32 bytes.

        Raises:
            UsageError: if there is no such leaf.
        """
        self._check_size(index + 1)
        return self._range(index, index + 1)

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise UsageError(f"there are {self.size} entries, not {size}", reason="ledger.size")

    def _range(self, start: int, end: int) -> bytes:
        """The hash over leaves start..end-1, where start is a multiple of the power of two that end - start fits in."""
        count = end - start
        if count & (count - 1) == 0:
            height = count.bit_length() - 1
            at = (start >> height) * HASH_BYTES
            return bytes(self._levels[height][at : at + HASH_BYTES])
        middle = start + _split(count)
        return _node(self._range(start, middle), self._range(middle, end))


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes, where: object = ""
) -> None:
    """Check that a leaf stands at ``index`` in the tree of ``size`` leaves with this root (RFC 9162 section 2.1.3.2).

    Args:
        leaf: The leaf's hash, 32 bytes.
        index: Its position, from 0.
        size: Number of leaves.
        proof: Hashes of 32 bytes, the leaf's sibling first.
        root: Root hash, 32 bytes.
        where: File, for errors.

    Raises:
        DigestDiffers: if it does not, or a node is missing, left over or not 32 bytes; ``ledger.inclusion``.
    """
    refused = DigestDiffers("does not prove that the entry is in the tree", where=where, reason="ledger.inclusion")
    if not 0 <= index < size or _malformed([leaf, root, *proof]):
        raise refused
    fn, sn, found = index, size - 1, leaf
    for node in proof:
        if sn == 0:
            raise refused
        if fn & 1 or fn == sn:
            found = _node(node, found)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = _node(found, node)
        fn, sn = fn >> 1, sn >> 1
    if sn or found != root:
        raise refused


def verify_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes], where: object = ""
) -> None:
    """Check that a tree continues an older one: its first ``old`` leaves are the same (RFC 9162 section 2.1.4.2).

    Two trees of one size are the same tree, and every tree continues the empty one; both without any node of proof.

    Args:
        old: Number of leaves of the older tree.
        old_root: Its root, 32 bytes.
        new: Number of leaves of the newer tree.
        new_root: Its root, 32 bytes.
        proof: Hashes of 32 bytes.
        where: File, for errors.

    Raises:
        DigestDiffers: if it does not, or a node is missing, left over or not 32 bytes; ``ledger.consistency``.
    """
    refused = DigestDiffers(
        "does not prove that one tree continues the other", where=where, reason="ledger.consistency"
    )
    if not 0 <= old <= new or _malformed([old_root, new_root, *proof]):
        raise refused
    if old in (0, new):
        if proof or old_root != (new_root if old == new else EMPTY):
            raise refused
        return
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not proof or not _same_edge(old, new, path, old_root, new_root):
        raise refused


def _same_edge(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old_found = new_found = path[0]
    for node in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            old_found, new_found = _node(node, old_found), _node(node, new_found)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new_found = _node(new_found, node)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and old_found == old_root and new_found == new_root


def _malformed(hashes: Iterable[bytes]) -> bool:
    return any(len(node) != HASH_BYTES for node in hashes)


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()


def _split(count: int) -> int:
    """The largest power of two below ``count``, which is 2 or more."""
    return 1 << (count - 1).bit_length() - 1
