from __future__ import annotations

from dataclasses import dataclass

import pytest

from hsmsign.cli.main import main
from tests.support import fake_server


@dataclass
class Result:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


@pytest.fixture
def state(tmp_path, monkeypatch):
    target = f"unix://{tmp_path}/d.sock"
    (tmp_path / "client.toml").write_text(f'endpoint = "{target}"\n')
    monkeypatch.setenv("HSMSIGN_CLIENT", str(tmp_path / "client.toml"))
    server, state, _ = fake_server.serve(target)
    yield state
    server.stop(0).wait()


@pytest.fixture
def hsmsign(capfdbinary):
    def run(*arguments: object) -> Result:
        capfdbinary.readouterr()
        code = main([str(one) for one in arguments])
        captured = capfdbinary.readouterr()
        return Result(code, captured.out, captured.err.decode())

    return run
