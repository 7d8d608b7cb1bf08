"""`make soak`: mixed callers, random faults, reloads, kill -9 and restart. At the end every signature that was answered
verifies and stands in the audit log, the log verifies, and memory and file descriptors are what they were.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmsign.audit import reading, verifying
from hsmsign.audit.notes import Verifier
from hsmsign.client import Client
from hsmsign.model.errors import HsmsignError
from hsmsign.model.purpose import PurposeKind
from tests.soak.callers import Callers, Ledger
from tests.soak.chaos import Chaos
from tests.support.daemon import Daemon, eventually

_KEYS = [f"keys/soak-{number}" for number in range(3)]
_CALM = 0.4
"""Of the time, without anything bad: memory is looked at meanwhile."""
_MEMORY_SLACK = 8.0
_FDS_SLACK = 4


@dataclass(frozen=True, slots=True)
class Size:
    """Of all processes of the daemon."""

    memory: float
    """MiB, proportional."""
    fds: int

    @classmethod
    def of(cls, daemon: Daemon) -> Size:
        """Now."""
        family = daemon.family()
        memory = sum(process.memory_full_info().pss for process in family) / (1 << 20)
        return cls(memory, sum(process.num_fds() for process in family))


def main() -> int:
    """Run, judge, say so; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else time.time_ns() % 1_000_000
    print(f"seed {seed}, {given.seconds:.0f} s", flush=True)
    daemon = Daemon(checkpoint_seconds=5)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _soak(daemon, Path(folder), given.seconds, seed)
    finally:
        daemon.remove()


def _soak(daemon: Daemon, folder: Path, seconds: float, seed: int) -> int:
    port = _free_port()
    daemon.configure(lambda text: text.replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"', 1))
    faults = daemon.with_faults(folder)
    faults.set()
    daemon.start()
    callers = Callers(lambda: daemon.client(deadline=20), _KEYS)
    with daemon.client() as owner:
        for key in _KEYS:
            owner.create_key(key, "ecdsa-p256")
            callers.ledger.public_keys[f"{key}/versions/1"] = owner.public_key_info(key).der
        owner.create_key("keys/tls", "ecdsa-p256", purpose=PurposeKind.TLS_SERVER)
        verifier = eventually(lambda: _verifier(owner), "no checkpoint was made")
    callers.begin()
    chaos, end = Chaos(daemon, faults, seed), time.monotonic() + seconds
    while time.monotonic() < end - seconds * _CALM:
        chaos.one()
        time.sleep(1.0)
        print(f"{len(callers.ledger.answers):>9,} signatures, {sum(chaos.done.values())} faults", flush=True)
    time.sleep(seconds * _CALM / 2)  # healed, and warm
    before = Size.of(daemon)
    answered = len(callers.ledger.answers)
    time.sleep(max(0.0, end - time.monotonic()))
    after = Size.of(daemon)
    calm = len(callers.ledger.answers) - answered
    callers.end()
    code = daemon.stop()
    findings = [*callers.ledger.wrong, *_sizes(before, after), *_signatures(callers.ledger)]
    findings += _recorded(callers.ledger, daemon.folder / "audit", verifier)
    findings += [f"the daemon ended with {code}"] if code else []
    findings += [] if calm else ["nothing was signed any more in the end"]
    print(f"faults: {dict(chaos.done)}\nerrors that callers heard: {dict(callers.ledger.errors)}")
    print(f"memory {before.memory:.1f} -> {after.memory:.1f} MiB, descriptors {before.fds} -> {after.fds}")
    print(f"{len(callers.ledger.answers):,} signatures, {len(findings)} findings")
    for finding in findings[:20]:
        print(f"  {finding}")
    return 1 if findings else 0


def _verifier(client: Client) -> Verifier | None:
    try:
        return Verifier.parse(client.audit_checkpoint().verifier_key)
    except HsmsignError:
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _sizes(before: Size, after: Size) -> list[str]:
    findings = []
    if after.memory > before.memory + _MEMORY_SLACK:
        findings.append("the memory is NOT FLAT")
    if after.fds > before.fds + _FDS_SLACK:
        findings.append("the file descriptors are NOT FLAT")
    return findings


def _signatures(ledger: Ledger) -> list[str]:
    keys = {version: load_der_public_key(der) for version, der in ledger.public_keys.items()}
    findings = []
    for answer in ledger.answers:
        key = keys.get(answer.key_version)
        assert isinstance(key, ec.EllipticCurvePublicKey), answer.key_version
        try:
            key.verify(answer.signature, answer.digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        except InvalidSignature:
            findings.append(f"a signature of {answer.key_version} is wrong")
    return findings


def _recorded(ledger: Ledger, folder: Path, verifier: Verifier) -> list[str]:
    """What was answered stands in the log, with what it is of; and the log is whole."""
    report = verifying.verify(folder, verifier)
    recorded: set[tuple[str, bytes, bytes]] = set()
    for _, line in reading.records(folder, 0):
        record = json.loads(line)
        if record["event"] == "sign":
            inputs, made = (base64.b64decode(record[name]) for name in ("inputs", "signatures"))
            pairs = zip(range(0, len(inputs), 32), range(0, len(made), 32), strict=False)
            recorded.update((record["key"], inputs[i : i + 32], made[j : j + 32]) for i, j in pairs)
    missing = sum((one.key_version, one.recorded, _hash(one.signature)) not in recorded for one in ledger.answers)
    findings = [f"the audit log: {finding.words}" for finding in report.findings]
    print(f"audit log: {report.size} records, {report.checkpoints} checkpoints, {len(recorded):,} signatures")
    return [*findings, *([f"{missing} answered signatures are not in the audit log"] if missing else [])]


def _hash(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


if __name__ == "__main__":
    sys.exit(main())
