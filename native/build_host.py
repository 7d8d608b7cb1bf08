"""Builds `hsmsign._native._host`, the native core of a device host (cffi, API mode).

Run by setuptools from the top of the tree: `cffi_modules=["native/build_host.py:ffi"]`.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

HEADERS = ("native/core/status.h", "native/core/harden.h", "native/host/host.h")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
GENERATED_NEEDS = ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
"""Warnings of the C that cffi writes, not of ours: `make -C native` compiles ours with more of them."""


def declarations(headers: tuple[str, ...] = HEADERS) -> str:
    """The headers as `cdef` takes them: without the preprocessor's lines."""
    return "\n".join(re.sub(r"^#.*$", "", Path(header).read_text(), flags=re.MULTILINE) for header in headers)


ffi = FFI()
ffi.cdef(declarations())
ffi.set_source(
    "hsmsign._native._host",
    '#include "native/core/harden.h"\n#include "native/host/host.h"\n',
    sources=sorted(str(path) for room in ("core", "host") for path in Path("native", room).glob("*.c")),
    depends=sorted(str(path) for path in Path("native").glob("*/*.h")),
    include_dirs=["."],
    libraries=["crypto", "dl", "pthread"],
    extra_compile_args=[*FLAGS, *GENERATED_NEEDS],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
