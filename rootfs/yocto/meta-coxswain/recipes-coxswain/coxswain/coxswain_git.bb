SUMMARY = "Container-centric device orchestrator"
DESCRIPTION = "Installs revisions of a device's whole software, runs their containers through containerd, keeps or rolls back. \
Runs as a service (package coxswain-service), or as the first process of an initial file system (package coxswain-init)."
COXSWAIN_PACKAGE = "coxswain"
COXSWAIN_MEMBER = "orchestrator/daemon"

require coxswain.inc

inherit systemd update-rc.d

do_install() {
	install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/coxswain ${D}${sbindir}/coxswain
	install -D -m 0644 ${S}/rootfs/debian/coxswain.toml ${D}${sysconfdir}/coxswain/coxswain.toml
	install -D -m 0644 ${S}/rootfs/debian/coxswain.service ${D}${systemd_system_unitdir}/coxswain.service
	install -D -m 0755 ${S}/rootfs/sysvinit/coxswain ${D}${sysconfdir}/init.d/coxswain
	install -d -m 0755 ${D}${localstatedir}/lib/coxswain
}

# The kernel starts /init of an initial file system.
do_install:append:class-target() {
	install -m 0755 ${D}${sbindir}/coxswain ${D}/init
}

PACKAGE_BEFORE_PN = "${PN}-init ${PN}-service"

SUMMARY:${PN}-init = "Coxswain as the first process of an initial file system"
FILES:${PN}-init = "/init"

SUMMARY:${PN}-service = "Coxswain as a service below systemd or a System V init"
FILES:${PN}-service = "${systemd_system_unitdir}/coxswain.service ${sysconfdir}/init.d/coxswain ${localstatedir}/lib/coxswain"
# kmod loads the modules that a revision's containers name.
RDEPENDS:${PN}-service = "${PN} kmod ${COXSWAIN_RUNTIME}"
SYSTEMD_PACKAGES = "${PN}-service"
SYSTEMD_SERVICE:${PN}-service = "coxswain.service"
INITSCRIPT_PACKAGES = "${PN}-service"
INITSCRIPT_NAME:${PN}-service = "coxswain"
INITSCRIPT_PARAMS:${PN}-service = "defaults 90 10"

CONFFILES:${PN} = "${sysconfdir}/coxswain/coxswain.toml"

# Makes the storage of images: the class coxswain-storage runs it.
BBCLASSEXTEND = "native"
