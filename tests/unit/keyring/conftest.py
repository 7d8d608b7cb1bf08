from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hsmsign.keyring import Keyring
from hsmsign.store import Store
from tests.support.fake_device import FakeDevice


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def other() -> FakeDevice:
    return FakeDevice(name="other", kind="pkcs11")


@pytest.fixture
def store(tmp_path: Path):
    opened = Store.open(f"sqlite:///{tmp_path}/store.db")
    yield opened
    opened.close()


@pytest.fixture
async def keyring(store: Store, device: FakeDevice, other: FakeDevice) -> AsyncIterator[Keyring]:
    made = Keyring(store, {"soft": device, "other": other}, "soft")
    yield made
    await made.close()
