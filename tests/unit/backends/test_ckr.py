import re
from pathlib import Path

import pkcs11.exceptions
import pytest

from hsmsign.backends import ckr
from hsmsign.model import errors
from hsmsign.model.ckr import name

HEADER = Path(__file__).resolve().parents[3] / "native" / "third_party" / "pkcs11.h"


def test_names_are_those_of_the_standards_header() -> None:
    defined = re.findall(r"^#define (CKR_\w+)\s+\((0x[0-9a-f]+|\d+)UL\)", HEADER.read_text(), re.M | re.I)
    assert len(defined) > 80
    for spelt, number in defined:
        assert name(int(number, 0)) == spelt


def test_numbers_without_a_name_are_shown_as_numbers() -> None:
    assert name(0x80000005) == "CKR_VENDOR_DEFINED+0x5"
    assert name(0x7777) == "CKR_0x7777"


@pytest.mark.parametrize(
    ("raised", "wanted", "name"),
    [
        (pkcs11.exceptions.TokenNotPresent(), errors.TokenNotPresentError, "CKR_TOKEN_NOT_PRESENT"),
        (pkcs11.exceptions.DeviceRemoved(), errors.TokenNotPresentError, "CKR_DEVICE_REMOVED"),
        (pkcs11.exceptions.PinIncorrect(), errors.PinRefusedError, "CKR_PIN_INCORRECT"),
        (pkcs11.exceptions.PinLocked(), errors.PinLockedError, "CKR_PIN_LOCKED"),
        (pkcs11.exceptions.UserNotLoggedIn(), errors.DeviceUnavailableError, "CKR_USER_NOT_LOGGED_IN"),
        (pkcs11.exceptions.MechanismInvalid(), errors.CapabilityMissingError, "CKR_MECHANISM_INVALID"),
        (pkcs11.exceptions.DeviceError(), errors.DeviceError, "CKR_DEVICE_ERROR"),
        (pkcs11.exceptions.AnotherUserAlreadyLoggedIn(), errors.DeviceError, "CKR_USER_ANOTHER_ALREADY_LOGGED_IN"),
        (pkcs11.exceptions.PKCS11Error("Unmapped error code 0x80000001"), errors.DeviceError, "CKR_VENDOR_DEFINED+0x1"),
    ],
)
def test_an_error_of_the_module_becomes_ours_and_keeps_its_name(
    raised: pkcs11.exceptions.PKCS11Error, wanted: type[errors.HsmsignError], name: str
) -> None:
    error = ckr.to_error(raised, "signing")
    assert type(error) is wanted
    assert error.metadata == {"ckr": name}
