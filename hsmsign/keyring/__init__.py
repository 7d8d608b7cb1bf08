"""Key handles: names, versions, states and labels, and which device holds what."""

from hsmsign.keyring.keyring import Keyring
from hsmsign.keyring.values import AdoptedObject, Key, ResolvedKey

__all__ = ["AdoptedObject", "Key", "Keyring", "ResolvedKey"]
