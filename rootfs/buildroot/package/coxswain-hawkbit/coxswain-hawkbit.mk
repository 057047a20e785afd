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

$(eval $(cargo-package))
