"""The bare device, as a Python program has it: python-pkcs11 signs with one key, and nothing of ours is in between.

    python -P -m hsmsign.backends.yardstick

Reads a line of JSON from stdin: {"backend": BackendConfig, "id": hex or null, "label": text or null, "threads": 2,
"scheme": name, "data": hex}. Logs in (one try), signs the data, and answers {"ok": hex}. From then on it answers each
line {"seconds": 2.5} with {"ok": signatures a second}, made by so many threads, each with a session of its own. An
answer may be {"error": ...} instead, which ends it; so do the end of its input, and SIGTERM within a measurement.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pkcs11
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error, UserAlreadyLoggedIn
from pkcs11.mechanisms import MGF, Mechanism

from hsmsign.backends import native, objects
from hsmsign.backends.base import BackendConfig
from hsmsign.backends.ckr import to_error
from hsmsign.backends.pin import read_pin
from hsmsign.backends.softhsm import Shelf
from hsmsign.backends.token import check_pin_counters, find_token
from hsmsign.model.algorithms import Family, Scheme
from hsmsign.model.errors import (
    ConfigurationError,
    HsmsignError,
    ObjectAmbiguousError,
    ObjectNotFoundError,
    PinRefusedError,
)
from hsmsign.model.hostwire import error_to_json, from_json

_DIGEST_INFO = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
"""DigestInfo up to the digest: RFC 8017, section 9.2, note 1."""


def main() -> None:
    """Answer what is asked, to the end of the input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # some modules write to stdout
    enough = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: enough.set())  # no signature is torn, and sessions are closed
    try:
        order = json.loads(sys.stdin.readline())
        signers = _signers(order)
        answers.write(json.dumps({"ok": signers[0](bytes.fromhex(order["data"])).hex()}) + "\n")
        for line in sys.stdin:
            rate = _rate(signers, bytes.fromhex(order["data"]), json.loads(line)["seconds"], enough)
            answers.write(json.dumps({"ok": rate}) + "\n")
    except HsmsignError as error:
        answers.write(json.dumps({"error": error_to_json(error)}) + "\n")
    except PKCS11Error as error:
        answers.write(json.dumps({"error": error_to_json(to_error(error, "signing with the bare device"))}) + "\n")


def _signers(order: dict[str, Any]) -> list[Callable[[bytes], bytes]]:
    """One a session, each with the key. The first session logs in, which holds for all."""
    config: BackendConfig = from_json(BackendConfig, order["backend"])
    token = _token(config)
    sessions = [_log_in(token, config)]
    sessions += [token.open(attribute_mapper=objects.Mapper()) for _ in range(1, order["threads"])]
    wanted: dict[Attribute, Any] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
    if order["id"] is not None:
        wanted[Attribute.ID] = bytes.fromhex(order["id"])
    if order["label"] is not None:
        wanted[Attribute.LABEL] = order["label"]
    return [_signer(_key(session, wanted), Scheme[order["scheme"]]) for session in sessions]


def _token(config: BackendConfig) -> Any:
    if config.token_dir is not None:
        Shelf(config.token_dir).prepare()
    native.open_module(config.module)
    return find_token(pkcs11.lib(native.module_path()), config)


def _log_in(token: Any, config: BackendConfig) -> Any:
    if config.quirks.login_as == "none":
        return token.open(attribute_mapper=objects.Mapper())
    if config.pin is None:
        raise ConfigurationError("the token wants a login, and no PIN is named", hint="name its file: --pin-file FILE")
    check_pin_counters(token)
    pin = read_pin(config.pin)
    try:
        return token.open(user_pin=pin, attribute_mapper=objects.Mapper())
    except UserAlreadyLoggedIn:
        return token.open(attribute_mapper=objects.Mapper())
    except PKCS11Error as error:
        found = to_error(error, "logging in")
        if isinstance(found, PinRefusedError):
            found.hint = "put the right PIN there; it was tried once, and each try counts on the token"
        raise found from None  # the frames below hold the PIN


def _key(session: Any, wanted: dict[Attribute, Any]) -> Any:
    found = list(session.get_objects(wanted))
    if len(found) == 1:
        return found[0]
    if found:
        raise ObjectAmbiguousError(
            f"{len(found)} private keys on the token fit", hint="name one by its CKA_ID: --key-id HEX"
        )
    raise ObjectNotFoundError(
        "no private key on the token fits", hint="name it: --key-id HEX, --key-label (hsmsign key show says its URI)"
    )


def _signer(key: Any, scheme: Scheme) -> Callable[[bytes], bytes]:
    """Signs a digest; Ed25519 a message."""
    mechanism = objects.SIGN[scheme.family]
    if scheme.family is not Family.RSA or scheme.hash is None:
        return lambda data: bytes(key.sign(data, mechanism=mechanism))
    if scheme.name.startswith("RSA_PSS"):
        name = scheme.hash.name
        parameters = (Mechanism[name], MGF[name], scheme.hash.size)
        return lambda data: bytes(key.sign(data, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=parameters))
    prefix = _DIGEST_INFO[scheme.hash.value]
    return lambda data: bytes(key.sign(prefix + data, mechanism=mechanism))


def _rate(signers: list[Callable[[bytes], bytes]], data: bytes, seconds: float, enough: threading.Event) -> float:
    """Signatures a second. Raises PKCS11Error, the first that any thread met."""
    counts: list[int] = []
    failures: list[PKCS11Error] = []
    began = time.perf_counter()

    def work(sign: Callable[[bytes], bytes]) -> None:
        count = 0
        try:
            while not (failures or enough.is_set()) and time.perf_counter() < began + seconds:
                sign(data)
                count += 1
        except PKCS11Error as error:
            failures.append(error)
        counts.append(count)

    threads = [threading.Thread(target=work, args=(sign,)) for sign in signers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
