# The OpenSSL provider (native/provider): `make -C native provider` leaves native/build/plain/hsmsign.so.
# Included by native/Makefile after remote.mk.
PROVIDER := $(ROOT)/native/provider
PROVIDER_SOURCES := $(wildcard $(PROVIDER)/*.c)
PROVIDER_HEADERS := $(wildcard $(PROVIDER)/*.h) $(REMOTE)/remote.h $(ROOT)/native/core/status.h

define provider_kind
$(BUILD)/$(1)/provider/objects/%.o: $(PROVIDER)/%.c $(PROVIDER_HEADERS)
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS) $($(1)) -fPIC -c -o $$@ $$<
$(BUILD)/$(1)/hsmsign.so: $(patsubst $(PROVIDER)/%.c,$(BUILD)/$(1)/provider/objects/%.o,$(PROVIDER_SOURCES)) \
                          $$(REMOTE_OBJECTS_$(1))
	$(CC) $(CFLAGS) $($(1)) -shared -Wl,--exclude-libs,ALL -Wl,-z,defs,-z,relro,-z,now -o $$@ $$^ $(REMOTE_LIBS)
endef
$(foreach kind,plain asan,$(eval $(call provider_kind,$(kind))))

.PHONY: provider
provider: $(BUILD)/plain/hsmsign.so
