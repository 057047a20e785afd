################################################################################
#
# coxctl
#
################################################################################

$(eval $(call coxswain-source,COXCTL,coxctl))

define COXCTL_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/$(COXSWAIN_TARGET_BINARIES)/coxctl \
		$(TARGET_DIR)/usr/bin/coxctl
endef

define HOST_COXCTL_INSTALL_CMDS
	$(INSTALL) -D -m 0755 $(@D)/$(COXSWAIN_HOST_BINARIES)/coxctl \
		$(HOST_DIR)/bin/coxctl
	$(INSTALL) -D -m 0755 $(@D)/rootfs/revision \
		$(HOST_DIR)/bin/coxswain-revision
endef

$(eval $(cargo-package))
$(eval $(host-cargo-package))
