"""The database: which names there are, and what they stand for. No secret is ever in it."""

from hsmsign.store.rows import ApprovalRow, KeyRow, ReplicaRow, VersionRow, VersionState
from hsmsign.store.store import Store

__all__ = ["ApprovalRow", "KeyRow", "ReplicaRow", "Store", "VersionRow", "VersionState"]
