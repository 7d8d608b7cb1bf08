from __future__ import annotations

import pytest

from hsmsign.tls.reading import parse
from hsmsign.tls.rules import Rules
from tests.support.tls_site import RULES, Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def rules() -> Rules:
    return parse(RULES, "rights.toml")
