"""Builds `hsmsign._native._provider`, OpenSSL's provider within a Python process (cffi, API mode).

Run by setuptools from the top of the tree: `cffi_modules=["native/build_provider.py:ffi"]`.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

ROOM = "native/provider"
HEADERS = ("native/core/status.h", *(f"{ROOM}/{name}.h" for name in ("reference", "signer", "inprocess")))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
GENERATED_NEEDS = ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
"""Warnings of the C that cffi writes, not of ours: `make -C native` compiles ours with more of them."""
PYTHON = """
extern "Python" hsm_status hsm_python_open(const struct hsm_reference *, void **, struct hsm_words *);
extern "Python" hsm_status hsm_python_sign(void *, const struct hsm_wish *, uint8_t *, size_t *, struct hsm_words *);
extern "Python" hsm_status hsm_python_public_key(void *, uint8_t *, size_t *, struct hsm_version *,
                                                  struct hsm_words *);
extern "Python" void hsm_python_close(void *);
void OPENSSL_free_pointer(void *);
"""
"""What the C calls."""

ffi = FFI()
ffi.cdef("\n".join(re.sub(r"^#.*$", "", Path(header).read_text(), flags=re.MULTILINE) for header in HEADERS) + PYTHON)
ffi.set_source(
    "hsmsign._native._provider",
    '#include <openssl/crypto.h>\n#include "native/provider/inprocess.h"\n'
    "static void OPENSSL_free_pointer(void *memory) { OPENSSL_free(memory); }\n",
    sources=sorted(str(path) for path in Path("native/provider").glob("*.c") if path.stem != "standalone"),
    depends=sorted(str(path) for path in Path("native").glob("*/*.h")),
    include_dirs=["."],
    libraries=["crypto", "dl"],
    extra_compile_args=[*FLAGS, *GENERATED_NEEDS],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
