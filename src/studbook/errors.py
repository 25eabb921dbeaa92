"""Every way Studbook says no, drawn as one tree and typed by whose fault it is.

    StudbookError                     exit
      UsageError                       2    the command was asked for something that does not exist
      BytesLie                         3    a file is not what it says it is
        SlmRefused                     3      an SLM1 container breaks a rule (``reason`` names the rule)
        AdapterRefused                 3      an adapter package breaks a rule or does not fit the model
        TokenizerRefused               3      a tokenizer section breaks a rule, or text cannot be decoded
        ManifestRefused                3      a key=value or trained-source manifest breaks a rule
        RecordRefused                  3      a record is not canonical, not strict JSON or not of its kind
      DigestDiffers                    4    bytes are well formed but not the ones that were promised
      ParentsDoNotFit                  5    the parents cannot be combined
      OutsideAllowlist                 6    the policy does not name it
      OverBudget                       7    a declared budget would be, or was, exceeded
      OutOfOrder                       8    a step was asked for before the one it needs
      NotAuthorised                    9    a key is missing, foreign, or not allowed to sign this
      ClaimRefused                    10    a claim stands above its evidence
      Busy                            11    another process holds the lab

Every error carries what is wrong, where (file and field) and what to do about it. A refusal that is part of the
work (a candidate that fails a gate, a no-op) is not an error but a record; see ``studbook.records``.
"""

from __future__ import annotations

__all__ = [
    "AdapterRefused",
    "Busy",
    "BytesLie",
    "ClaimRefused",
    "DigestDiffers",
    "ManifestRefused",
    "NotAuthorised",
    "OutOfOrder",
    "OutsideAllowlist",
    "OverBudget",
    "ParentsDoNotFit",
    "RecordRefused",
    "SlmRefused",
    "StudbookError",
    "TokenizerRefused",
    "UsageError",
    "printable",
]


_LONGEST = 2000


def printable(text: object) -> str:
    """Text without control characters, direction overrides or lone surrogates: foreign names never drive a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


class StudbookError(Exception):
    """What is wrong, where it is, and what to do now.

    Args:
        message: What is wrong, in one line.
        where: The file, and the field or byte offset in it; empty when there is none.
        advice: What the reader should do now.
        reason: A stable machine-readable code, ``area.rule``.
    """

    exit_code = 1
    advice = "Read the message again; if it makes no sense, please report it."
    reason = "studbook"

    def __init__(self, message: str, *, where: object = "", advice: str = "", reason: str = "") -> None:
        # A message may quote foreign text of any length.
        self.message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
        super().__init__(self.message)
        self.where = str(where)
        self.advice = advice or type(self).advice
        self.reason = reason or type(self).reason

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message}"


class UsageError(StudbookError):
    """The command, name or path that was asked for does not exist or cannot be used this way."""

    exit_code = 2
    advice = "Check the spelling; `studbook list` shows what the lab holds."
    reason = "usage"


class BytesLie(StudbookError):
    """A file is not what it says it is; nothing was read beyond the first lie."""

    exit_code = 3
    advice = "Do not use this file. Fetch it again from its producer and compare digests."
    reason = "bytes"


class SlmRefused(BytesLie):
    """An SLM1 container breaks a rule of the format; ``reason`` names it, such as ``slm.checksum``."""

    reason = "slm"


class AdapterRefused(BytesLie):
    """An adapter package breaks a rule or does not fit the model; ``reason`` names it, such as ``adapter.mask``."""

    reason = "adapter"


class TokenizerRefused(BytesLie):
    """A tokenizer section breaks a rule, or a token sequence does not decode to text."""

    reason = "tokenizer"


class ManifestRefused(BytesLie):
    """A ``key=value`` manifest, or a file it lists, breaks a rule."""

    advice = "Correct the manifest at the named line or field; nothing was registered."
    reason = "manifest"


class RecordRefused(BytesLie):
    """A record is not strict canonical JSON, or not a known kind with exactly its fields."""

    advice = "The record was edited or damaged. Restore it from a backup; records are never corrected in place."
    reason = "record"


class DigestDiffers(StudbookError):
    """The bytes are well formed but are not the ones that were promised."""

    exit_code = 4
    advice = "The file changed after it was recorded. Restore it from a backup, or reproduce it from its receipt."
    reason = "digest"


class ParentsDoNotFit(StudbookError):
    """The parents differ in shape, tokenizer, layout or licence, so no merge of them would mean anything."""

    exit_code = 5
    advice = "Choose parents that share base, tokenizer and layout; `studbook compare A B` shows where two differ."
    reason = "parents"


class OutsideAllowlist(StudbookError):
    """The policy does not name this operator, suite, parameter or stage."""

    exit_code = 6
    advice = "Ask the owner of the policy to allow it; a policy change is signed by a person."
    reason = "policy"


class OverBudget(StudbookError):
    """A declared budget would be exceeded, or was; the work was stopped and its output thrown away."""

    exit_code = 7
    advice = "Lower what is asked for, or have the owner of the policy raise the budget."
    reason = "budget"


class OutOfOrder(StudbookError):
    """A step was asked for before the one it depends on."""

    exit_code = 8
    advice = "Do the named step first."
    reason = "order"


class NotAuthorised(StudbookError):
    """A key is missing, unknown, or signs outside its zone and record kind."""

    exit_code = 9
    advice = "Use a key that the lab's root lists for this zone and kind of record."
    reason = "authority"


class ClaimRefused(StudbookError):
    """A claim stands above the rung of the gate ladder that its evidence reaches."""

    exit_code = 10
    advice = "Lower the claim, or produce the evidence for it first."
    reason = "claim"


class Busy(StudbookError):
    """Another process is writing to this lab."""

    exit_code = 11
    advice = "Wait for it to finish, or end it with `studbook server stop` where it is a server."
    reason = "busy"
