"""What a policy says: plain values, checked by whoever made them (`hsmsign.policy.reading`)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.purpose import PurposeKind


class Action(enum.Enum):
    """What can be done. The value is the word in a policy."""

    SIGN = "sign"
    """Sign a message."""
    SIGN_DIGEST = "sign-digest"
    """Sign a bare digest, of which nobody can say what it stands for. Wants SIGN too."""
    READ = "read"
    """See a key, its public key and its attestation; verify a signature."""
    CREATE = "create"
    """Make a key."""
    ROTATE = "rotate"
    """Make a new version of a key, choose the primary one."""
    DESTROY = "destroy"
    """Destroy a key or a version."""
    ISSUE = "issue"
    """Have certificates issued by the certificate authority whose key it is, as its profiles allow."""
    REVOKE = "revoke"
    """Revoke certificates of the certificate authority whose key it is, have CRLs made."""
    APPROVE = "approve"
    """Grant or deny what others asked for, of a key under dual control."""
    AUDIT = "audit"
    """Read the audit log."""
    ADMIN = "admin"
    """Adopt objects, change labels, enable and disable versions."""


@dataclass(frozen=True, slots=True)
class Hours:
    """When a rule holds: on days of the week, from a time to another, of a time zone."""

    days: tuple[int, ...]
    """0 is Monday."""
    start: int
    """Minutes since midnight; the first in which it holds."""
    end: int
    """Minutes since midnight; the first in which it does not hold any more."""
    zone: str
    """A name of the IANA time zone database."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows, or denies, those who match something on the keys that match. Nothing in a condition: it always holds."""

    place: str
    """Where it stands, `policy.toml:12`."""
    allows: bool
    principals: tuple[str, ...]
    """Patterns of callers' names: `*` stands for anything."""
    actions: tuple[Action, ...]
    keys: tuple[str, ...] = ("*",)
    """Patterns of key ids."""
    labels: tuple[tuple[str, str], ...] = ()
    """The key has these labels with values of these patterns."""
    algorithms: tuple[KeyAlgorithm, ...] = ()
    """The key is of one of these."""
    purposes: tuple[PurposeKind, ...] = ()
    """The key is for one of these."""
    hours: Hours | None = None


class LimitScope(enum.Enum):
    """What a limit is counted for. The value is the word in a policy."""

    PRINCIPAL = "principal"
    """Each caller, all its keys together."""
    KEY = "key"
    """Each key, all its callers together."""
    BOTH = "principal-and-key"
    """Each caller with each key."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much those who match something may have signed with keys that match."""

    place: str
    principals: tuple[str, ...]
    keys: tuple[str, ...]
    per: LimitScope
    rate: float = 0.0
    """Signatures a second; 0: any."""
    burst: int = 0
    """Signatures that may come at once after a pause."""
    concurrency: int = 0
    """Signatures under way; 0: any."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A whole policy."""

    source: str
    """The file it was read from."""
    rules: tuple[Rule, ...]
    limits: tuple[Limit, ...] = ()
