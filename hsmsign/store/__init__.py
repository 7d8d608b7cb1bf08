"""The database: which names there are, and what they stand for. No secret is ever in it."""

from hsmsign.store.rows import KeyRow, VersionRow, VersionState
from hsmsign.store.store import Store

__all__ = ["KeyRow", "Store", "VersionRow", "VersionState"]
