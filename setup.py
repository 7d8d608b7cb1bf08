"""Builds what pyproject.toml cannot say: the native modules (cffi) and the gRPC stubs (protoc)."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildPy(build_py):
    """Generates `hsmsign/v1` from `protos/` before the Python files are gathered."""

    def run(self) -> None:
        """Generate, then gather."""
        # google.rpc.Status is imported by our protos; its source travels with googleapis-common-protos
        include = Path(str(files("google.rpc").joinpath("status.proto"))).parents[2]
        protos = sorted((ROOT / "protos").rglob("*.proto"))
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", f"-I{include}"]
        command += [f"--{plugin}_out={ROOT}" for plugin in ("python", "grpc_python", "pyi")]
        subprocess.run([*command, *map(str, protos)], check=True)
        super().run()


setup(
    cmdclass={"build_py": BuildPy},
    cffi_modules=[f"native/build_{name}.py:ffi" for name in ("host", "front", "provider", "tls")],
)
