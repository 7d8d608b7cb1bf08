"""Whether a message is what a key is for: parsed strictly, refused with what was expected."""

from hsmsign.purposes.checking import Signer, check
from hsmsign.purposes.describing import describe

__all__ = ["Signer", "check", "describe"]
