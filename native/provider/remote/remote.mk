# The remote client (native/provider/remote): HTTP/2 by libnghttp2, messages by nanopb (generated from protos/ into
# native/build), TLS by libssl. Its tests are tests/native/remote/test_*.c; driver.c there is for the integration
# tests. Included by native/Makefile. REMOTE_OBJECTS of a kind are what a program or the provider links.
REMOTE := $(ROOT)/native/provider/remote
PYTHON ?= $(ROOT)/.venv/bin/python
REMOTE_LIBS := -lnghttp2 -lprotobuf-nanopb -lssl -lcrypto -lpthread
REMOTE_PROTO := $(BUILD)/proto
REMOTE_PROTOS := hsmsign/v1/signing hsmsign/v1/keys google/rpc/status google/protobuf/any google/protobuf/duration \
                 google/protobuf/field_mask google/protobuf/timestamp
REMOTE_GENERATED := $(REMOTE_PROTOS:%=$(REMOTE_PROTO)/%.pb.c)
REMOTE_SOURCES := $(wildcard $(REMOTE)/*.c)
REMOTE_HEADERS := $(wildcard $(REMOTE)/*.h $(ROOT)/native/core/*.h $(ROOT)/tests/native/*/*.h)
REMOTE_TESTS := $(patsubst $(ROOT)/tests/native/%.c,%,$(wildcard $(ROOT)/tests/native/remote/test_*.c))
REMOTE_PROGRAMS := $(REMOTE_TESTS) remote/driver
plain :=

# the plugin is a program of the system's Python, which the path of another one (pip's, while it builds) would break
$(REMOTE_PROTO)/.made: $(ROOT)/protos/hsmsign/v1/signing.proto $(ROOT)/protos/hsmsign/v1/keys.proto $(REMOTE)/remote.mk
	@mkdir -p $(@D)
	@include=$$($(PYTHON) -c 'import pathlib, google.rpc.status_pb2 as m; print(pathlib.Path(m.__file__).parents[2])') && \
	    printf '#!/bin/sh\nexec env -u PYTHONPATH -u PYTHONHOME %s "$$@"\n' "$$(command -v protoc-gen-nanopb)" > $(@D)/plugin && \
	    chmod +x $(@D)/plugin && \
	    $(PYTHON) -m grpc_tools.protoc -I$(ROOT)/protos -I$$include --plugin=protoc-gen-nanopb=$(@D)/plugin \
	    --nanopb_opt=-q --nanopb_out=$(REMOTE_PROTO) $(REMOTE_PROTOS:%=%.proto)
	@touch $@
$(REMOTE_GENERATED): $(REMOTE_PROTO)/.made ;

define remote_kind
REMOTE_OBJECTS_$(1) := $(patsubst $(REMOTE)/%.c,$(BUILD)/$(1)/remote/objects/%.o,$(REMOTE_SOURCES)) \
                       $(patsubst $(REMOTE_PROTO)/%.c,$(BUILD)/$(1)/remote/proto/%.o,$(REMOTE_GENERATED))
$(BUILD)/$(1)/remote/objects/%.o: $(REMOTE)/%.c $(REMOTE_HEADERS) $(REMOTE_PROTO)/.made
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS) $($(1)) -fPIC -isystem $(REMOTE_PROTO) -c -o $$@ $$<
$(BUILD)/$(1)/remote/proto/%.o: $(REMOTE_PROTO)/%.c
	@mkdir -p $$(@D)
	$(CC) -std=c11 -O1 -g -fvisibility=hidden $($(1)) -fPIC -I$(REMOTE_PROTO) -c -o $$@ $$<
$(REMOTE_PROGRAMS:%=$(BUILD)/$(1)/%): $(BUILD)/$(1)/%: $(ROOT)/tests/native/%.c $$(REMOTE_OBJECTS_$(1)) $(REMOTE_HEADERS)
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS) $($(1)) -o $$@ $$< $$(REMOTE_OBJECTS_$(1)) $(REMOTE_LIBS)
.PHONY: remote-$(1)
remote-$(1): $(REMOTE_PROGRAMS:%=$(BUILD)/$(1)/%)
endef
$(foreach kind,plain asan tsan,$(eval $(call remote_kind,$(kind))))
asan: $(REMOTE_TESTS:%=$(BUILD)/asan/%)
tsan: $(REMOTE_TESTS:%=$(BUILD)/tsan/%)

.PHONY: fuzz-remote
fuzz-remote: $(REMOTE_OBJECTS_asan)
	@mkdir -p $(BUILD)
	$(CC) $(CFLAGS) $(asan) -o $(BUILD)/fuzz_answer $(ROOT)/tests/native/remote/fuzz_answer.c $(REMOTE_OBJECTS_asan) $(REMOTE_LIBS)
	$(BUILD)/fuzz_answer $(SECONDS) $(SEED)
