# The OpenSSL provider (native/provider): `make -C native provider` leaves native/build/plain/hsmsign.so. Its tests are
# tests/native/provider/test_*.c, with a signer of their own in the place of the client. Included by native/Makefile
# after remote.mk.
PROVIDER := $(ROOT)/native/provider
PROVIDER_SOURCES := $(wildcard $(PROVIDER)/*.c)
PROVIDER_HEADERS := $(wildcard $(PROVIDER)/*.h) $(REMOTE)/remote.h $(ROOT)/native/core/status.h
PROVIDER_TESTS := $(patsubst $(ROOT)/tests/native/%.c,%,$(wildcard $(ROOT)/tests/native/provider/test_*.c))
PROVIDER_TEST_HEADERS := $(wildcard $(ROOT)/tests/native/provider/*.h) $(ROOT)/tests/native/host/check.h

define provider_kind
PROVIDER_OBJECTS_$(1) := $(patsubst $(PROVIDER)/%.c,$(BUILD)/$(1)/provider/objects/%.o,$(PROVIDER_SOURCES))
$(BUILD)/$(1)/provider/objects/%.o: $(PROVIDER)/%.c $(PROVIDER_HEADERS)
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS) $($(1)) -fPIC -c -o $$@ $$<
$(BUILD)/$(1)/hsmsign.so: $$(filter-out %/inprocess.o,$$(PROVIDER_OBJECTS_$(1))) $$(REMOTE_OBJECTS_$(1))
	$(CC) $(CFLAGS) $($(1)) -shared -Wl,--exclude-libs,ALL -Wl,-z,defs,-z,relro,-z,now -o $$@ $$^ $(REMOTE_LIBS)
$(PROVIDER_TESTS:%=$(BUILD)/$(1)/%): $(BUILD)/$(1)/%: $(ROOT)/tests/native/%.c $$(PROVIDER_OBJECTS_$(1)) \
                                     $(PROVIDER_HEADERS) $(PROVIDER_TEST_HEADERS)
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS) $($(1)) -o $$@ $$< $$(filter-out %/standalone.o,$$(PROVIDER_OBJECTS_$(1))) -lssl $(LIBS)
endef
$(foreach kind,plain asan tsan,$(eval $(call provider_kind,$(kind))))
asan: $(PROVIDER_TESTS:%=$(BUILD)/asan/%)
tsan: $(PROVIDER_TESTS:%=$(BUILD)/tsan/%)

.PHONY: provider
provider: $(BUILD)/plain/hsmsign.so

.PHONY: fuzz-provider
fuzz: fuzz-provider
fuzz-provider: $(PROVIDER_OBJECTS_asan)
	@mkdir -p $(BUILD)/corpus/fuzz_reference
	@set -e; order="$(CFLAGS) -o $(BUILD)/fuzz_reference $(ROOT)/tests/native/provider/fuzz_reference.c"; \
	if command -v clang > /dev/null; then \
	    clang $$order -DHSM_LIBFUZZER -fsanitize=fuzzer,address,undefined \
	        $(filter-out %/standalone.c,$(PROVIDER_SOURCES)) $(LIBS); \
	    $(BUILD)/fuzz_reference -max_total_time=$(SECONDS) -max_len=4096 $(BUILD)/corpus/fuzz_reference; \
	else \
	    $(CC) $$order $(asan) $(filter-out %/standalone.o,$(PROVIDER_OBJECTS_asan)) $(LIBS); \
	    $(BUILD)/fuzz_reference $(SECONDS) $(SEED); \
	fi

# many handshakes with hsmsign.so and a daemon: tests/soak/handshakes.py
define provider_soak
.PHONY: soak-handshakes-$(1)
soak-handshakes-$(1): $(BUILD)/$(1)/provider/soak_handshakes $(BUILD)/$(1)/hsmsign.so
$(BUILD)/$(1)/provider/soak_handshakes: $(ROOT)/tests/native/provider/soak_handshakes.c $(PROVIDER_TEST_HEADERS)
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS) $($(1)) -o $$@ $$< -lssl $(LIBS)
endef
$(foreach kind,plain asan,$(eval $(call provider_soak,$(kind))))

# the same tests with another OpenSSL, where its headers and static libraries are: OPENSSL=/opt/openssl-4
.PHONY: test-provider-with
test-provider-with:
	@mkdir -p $(BUILD)/with
	@set -e; for test in $(PROVIDER_TESTS); do \
	    $(CC) $(CFLAGS) -I$(OPENSSL)/include -o $(BUILD)/with/$$(basename $$test) $(ROOT)/tests/native/$$test.c \
	        $(filter-out %/standalone.c,$(PROVIDER_SOURCES)) $(OPENSSL)/lib/libssl.a $(OPENSSL)/lib/libcrypto.a -ldl -lpthread; \
	    echo "with $(OPENSSL): $$test"; $(BUILD)/with/$$(basename $$test) | tail -n 1; \
	done
