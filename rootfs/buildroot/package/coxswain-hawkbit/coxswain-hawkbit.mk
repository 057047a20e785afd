################################################################################
#
# coxswain-hawkbit
#
################################################################################

$(eval $(call coxswain-source,COXSWAIN_HAWKBIT,coxswain-hawkbit))

define COXSWAIN_HAWKBIT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/$(COXSWAIN_TARGET_BINARIES)/coxswain-hawkbit \
		$(TARGET_DIR)/usr/bin/coxswain-hawkbit
endef

define COXSWAIN_HAWKBIT_INSTALL_INIT_SYSTEMD
	mkdir -p $(TARGET_DIR)/usr/lib/systemd/system
	sed 's/@CLOUD@/hawkbit/g' $(@D)/rootfs/systemd/coxswain-cloud.service \
		>$(TARGET_DIR)/usr/lib/systemd/system/coxswain-hawkbit.service
endef

$(eval $(cargo-package))
