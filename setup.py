"""Builds what pyproject.toml cannot say: native modules (cffi), gRPC stubs (protoc), OpenSSL's provider (make)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
NEEDED_HEADERS = {"nghttp2/nghttp2.h": "libnghttp2-dev", "pb.h": "libnanopb-dev", "openssl/evp.h": "libssl-dev"}
NEEDED_PROGRAMS = {"protoc-gen-nanopb": "nanopb", "make": "make"}


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


class BuildExt(build_ext):
    """Makes `hsmsign/_native/hsmsign.so`, too: OpenSSL's provider for nginx and others (docs/provider.md).

    What only it needs may be missing: then everything else is installed, and `hsmsign provider` says what is missing.
    """

    def run(self) -> None:
        """The modules for Python, then the provider."""
        super().run()
        missing = self._missing()
        if missing:
            print(f"hsmsign.so is left out, for want of: {' '.join(missing)}", file=sys.stderr)
            return
        home = ROOT if self.inplace else Path(self.build_lib)
        build = Path(self.build_temp).absolute() / "provider"
        # another compiler's new warnings are for who works on it, not for who installs it
        command = ["make", "-s", "-C", str(ROOT / "native"), f"BUILD={build}", f"PYTHON={sys.executable}"]
        command += ["WARNINGS=-Wall", f"plain=-fPIC -O2 -ffile-prefix-map={ROOT.absolute()}/="]
        subprocess.run([*command, "provider"], check=True)
        target = home / "hsmsign" / "_native" / "hsmsign.so"
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")
        shutil.copy(build / "plain" / "hsmsign.so", fresh)
        fresh.replace(target)  # a program that has the old one loaded keeps it

    def _missing(self) -> list[str]:
        compiler = os.environ.get("CC", "cc").split()
        missing = [package for program, package in NEEDED_PROGRAMS.items() if shutil.which(program) is None]
        for header, package in NEEDED_HEADERS.items():
            command = [*compiler, "-x", "c", "-fsyntax-only", "-"]
            try:
                done = subprocess.run(command, input=f"#include <{header}>\n", text=True, capture_output=True)
            except OSError:
                return [*missing, "gcc"]
            if done.returncode != 0:
                missing.append(package)
        return missing


setup(
    cmdclass={"build_py": BuildPy, "build_ext": BuildExt},
    cffi_modules=[f"native/build_{name}.py:ffi" for name in ("host", "front", "provider", "tls")],
)
