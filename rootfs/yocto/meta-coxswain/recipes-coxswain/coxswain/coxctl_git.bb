SUMMARY = "Operates a device that runs Coxswain, and authors revisions"
COXSWAIN_PACKAGE = "coxctl"
COXSWAIN_MEMBER = "orchestrator/ctl"

require coxswain.inc

do_install:append() {
	# Make revisions and storages from what other recipes deploy; the classes run them.
	install -m 0755 ${S}/rootfs/revision ${D}${bindir}/coxswain-revision
	install -m 0755 ${S}/rootfs/filesystem ${D}${bindir}/coxswain-filesystem
}

PACKAGE_BEFORE_PN = "${PN}-author"
SUMMARY:${PN}-author = "Makes revisions from images, kernels and initial file systems"
FILES:${PN}-author = "${bindir}/coxswain-revision ${bindir}/coxswain-filesystem"
RDEPENDS:${PN}-author = "${PN} bash"

BBCLASSEXTEND = "native nativesdk"
