################################################################################
#
# coxswain-ready
#
################################################################################

$(eval $(call coxswain-source,COXSWAIN_READY,ready))

define COXSWAIN_READY_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/$(COXSWAIN_TARGET_BINARIES)/ready \
		$(TARGET_DIR)/usr/lib/coxswain/ready
endef

$(eval $(cargo-package))
