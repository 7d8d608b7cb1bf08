"""What the front workers of one daemon count together, in memory that they share (native/front/ledger.c)."""

from hsmsign.ledger.ledger import Bell, Claim, Claims, Ledger, Ledgers, Refused

__all__ = ["Bell", "Claim", "Claims", "Ledger", "Ledgers", "Refused"]
