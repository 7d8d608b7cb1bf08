"""The checks of badkeys for RSA keys, by what they find. Not small: imported where the first RSA key is checked."""

from __future__ import annotations

from badkeys.rsakeys import (  # type: ignore[import-untyped]
    fermat,
    pattern,
    roca,
    rsabias,
    rsainvalid,
    rsapoly,
    sharedprimes,
    smalld,
    smallfactors,
    xzbackdoor,
)

CHECKS = {
    # the cheap ones first
    rsainvalid: "its exponent is out of range",
    xzbackdoor: "it carries orders for the backdoor in xz (CVE-2024-3094)",
    pattern: "its modulus repeats a byte",
    smallfactors: "its modulus has a small factor",
    rsabias: "its modulus is no product of random primes: its bits are unevenly set",
    rsapoly: "its modulus is no product of random primes: a polynomial factors it (CVE-2021-41117 and its like)",
    sharedprimes: "a prime of it is in other keys, too",
    roca: "a faulty chip made it (ROCA, CVE-2017-15361)",
    fermat: "its primes are too near to each other (Fermat, CVE-2022-26320)",
    smalld: "its private exponent is small (Wiener)",
}
