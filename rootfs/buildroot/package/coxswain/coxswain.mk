################################################################################
#
# coxswain
#
################################################################################

$(eval $(call coxswain-source,COXSWAIN,coxswain))

define COXSWAIN_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/$(COXSWAIN_TARGET_BINARIES)/coxswain \
		$(TARGET_DIR)/usr/sbin/coxswain
	$(INSTALL) -D -m 0644 $(@D)/rootfs/debian/coxswain.toml \
		$(TARGET_DIR)/etc/coxswain/coxswain.toml
	mkdir -p $(TARGET_DIR)/var/lib/coxswain
endef

define COXSWAIN_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/rootfs/debian/coxswain.service \
		$(TARGET_DIR)/usr/lib/systemd/system/coxswain.service
endef

define COXSWAIN_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/rootfs/sysvinit/coxswain \
		$(TARGET_DIR)/etc/init.d/S90coxswain
endef

define HOST_COXSWAIN_INSTALL_CMDS
	$(INSTALL) -D -m 0755 $(@D)/$(COXSWAIN_HOST_BINARIES)/coxswain \
		$(HOST_DIR)/bin/coxswain
endef

$(eval $(cargo-package))
$(eval $(host-cargo-package))
