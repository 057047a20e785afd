################################################################################
#
# Coxswain
#
################################################################################

# The packages are members of one Cargo workspace and share its source. $(1) is the package in capital letters, $(2) the
# member. LTO and one unit are what the figures of tests/benches are measured with.
ifeq ($(BR2_COXSWAIN_SOURCE_GIT),y)

define coxswain-source
$(1)_VERSION = $(call qstrip,$(BR2_COXSWAIN_SOURCE_GIT_VERSION))
$(1)_SITE = $(call qstrip,$(BR2_COXSWAIN_SOURCE_GIT_REPOSITORY))
$(1)_SITE_METHOD = git
BR_NO_CHECK_HASH_FOR += $$($(1)_SOURCE)
$(call coxswain-build,$(1),$(2))
endef

else

define coxswain-source
$(1)_VERSION = checkout
$(1)_SITE = $(BR2_EXTERNAL_COXSWAIN_PATH)/../..
$(1)_SITE_METHOD = local
$(1)_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude /target
HOST_$(1)_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude /target
$(1)_POST_CONFIGURE_HOOKS += COXSWAIN_VENDOR
HOST_$(1)_POST_CONFIGURE_HOOKS += COXSWAIN_VENDOR
$(call coxswain-build,$(1),$(2))
endef

# Buildroot vendors what it downloads; a copy of a checkout is vendored here. The crates are kept in BR_CARGO_HOME.
define COXSWAIN_VENDOR
	mkdir -p $(@D)/.cargo $(BR_CARGO_HOME)
	cd $(@D) && $(HOST_MAKE_ENV) CARGO_HOME=$(BR_CARGO_HOME) \
		flock $(BR_CARGO_HOME)/.br-lock \
		cargo vendor --locked VENDOR >.cargo/vendored.toml
	mv $(@D)/.cargo/vendored.toml $(@D)/.cargo/config.toml
endef

endif

define coxswain-build
$(1)_LICENSE = MIT
$(1)_LICENSE_FILES = LICENSE-MIT
$(1)_DEPENDENCIES = host-protobuf
HOST_$(1)_DEPENDENCIES = host-protobuf
$(1)_CARGO_BUILD_OPTS = --package $(2)
HOST_$(1)_CARGO_BUILD_OPTS = --package $(2)
$(1)_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1"
endef

# Where cargo puts what it built.
COXSWAIN_TARGET_BINARIES = target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)
COXSWAIN_HOST_BINARIES = target/release

include $(sort $(wildcard $(BR2_EXTERNAL_COXSWAIN_PATH)/package/*/*.mk))
