"""Signatures of a root: what uses an approval up, and what does not."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest

from hsmsign.audit.auditing import NoAudit
from hsmsign.keyring import Keyring
from hsmsign.keyring.approvals import Approvals
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, SignatureFormat
from hsmsign.model.caller import Caller
from hsmsign.model.device import JobFailure, JobStatus
from hsmsign.model.dual_control import DualControl
from hsmsign.model.errors import ApprovalRequiredError, DeviceUnavailableError, DigestLengthError
from hsmsign.model.limits import Limits
from hsmsign.policy import Policy
from hsmsign.signing import Admission, SigningPipeline
from hsmsign.signing.places import Places
from hsmsign.signing.values import SignGroup
from hsmsign.store import Store
from tests.support import policies
from tests.support.fake_device import FakeDevice

ANN, BEN = Caller("spiffe://corp/ann"), Caller("spiffe://corp/ben")
DIGEST = hashlib.sha256(b"hello").digest()


class Root:
    """A key whose signatures one other has to approve."""

    def __init__(self, store: Store) -> None:
        self.device = FakeDevice()
        self.approvals = Approvals(store)
        self.keyring = Keyring(store, {"soft": self.device}, "soft")
        policy, admission = Policy(policies.EVERYTHING), Admission((), 1000)
        devices = {"soft": self.device}
        self.pipeline = SigningPipeline(
            self.keyring, Places(devices, 1000), Limits(), policy, admission, NoAudit(), self.approvals
        )

    async def sign(self, data: bytes, kind: InputKind = InputKind.DIGEST) -> str:
        """Have it signed; the approval that was used."""
        group = SignGroup("keys/root", None, kind, SignatureFormat.DER, [data])
        result = await self.pipeline.sign(ANN, group)
        assert bool(result.approval) is not bool(result.failures)
        return result.approval

    async def approved(self, data: bytes) -> str:
        """Ask for it, and have it granted."""
        with pytest.raises(ApprovalRequiredError) as refused:
            await self.sign(data)
        name = refused.value.metadata["approval"]
        await self.approvals.decide(name, BEN, grant=True)
        return name


@pytest.fixture
async def root(tmp_path) -> AsyncIterator[Root]:
    store = Store.open(f"sqlite:///{tmp_path}/store.db")
    made = Root(store)
    await made.keyring.create("root", KeyAlgorithm.EC_P256, control=DualControl(1, signing=True))
    yield made
    store.close()


async def test_a_signature_that_the_device_did_not_make_uses_nothing_up(root: Root) -> None:
    name = await root.approved(DIGEST)
    root.device.failing = JobFailure(0, JobStatus.DEVICE_ERROR, 0x30)
    assert await root.sign(DIGEST) == ""
    root.device.failing = None
    assert await root.sign(DIGEST) == name
    with pytest.raises(ApprovalRequiredError):
        await root.sign(DIGEST)


async def test_a_device_that_is_not_there_uses_nothing_up(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    name = await root.approved(DIGEST)

    async def gone(_: object) -> None:
        raise DeviceUnavailableError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(root.device, "sign", gone)
        with pytest.raises(DeviceUnavailableError):
            await root.sign(DIGEST)
    assert await root.sign(DIGEST) == name


async def test_an_approved_message_is_no_approved_digest(root: Root) -> None:
    await root.approved(DIGEST)
    with pytest.raises(ApprovalRequiredError):
        await root.sign(DIGEST, InputKind.MESSAGE)


async def test_nobody_is_asked_about_an_input_that_is_no_good(root: Root) -> None:
    with pytest.raises(DigestLengthError):
        await root.sign(DIGEST[1:])
    assert (await root.approvals.list(everything=True))[0] == []
