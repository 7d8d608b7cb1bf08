"""Builds `hsmsign._native._tls`, the native part of hsmsign.tls (cffi, API mode).

Run by setuptools from the top of the tree: `cffi_modules=["native/build_tls.py:ffi"]`.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

HEADERS = ("native/core/status.h", "native/tls/tls.h")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
GENERATED_NEEDS = ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
"""Warnings of the C that cffi writes, not of ours: `make -C native` compiles ours with more of them."""


ffi = FFI()
ffi.cdef("\n".join(re.sub(r"^#.*$", "", Path(header).read_text(), flags=re.MULTILINE) for header in HEADERS))
ffi.cdef('extern "Python" int hsm_tls_choose(void *, SSL *, const uint8_t *, size_t);')
ffi.set_source(
    "hsmsign._native._tls",
    '#include "native/tls/tls.h"\n',
    sources=sorted(str(path) for path in Path("native/tls").glob("*.c")),
    depends=sorted(str(path) for path in Path("native").glob("*/*.h")),
    include_dirs=["."],
    libraries=["ssl", "crypto", "dl", "pthread"],
    extra_compile_args=[*FLAGS, *GENERATED_NEEDS],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
