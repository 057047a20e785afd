SUMMARY = "System image: what is the root while Coxswain is the first process"
DESCRIPTION = "One read-only image in the initial file system: containerd, runc, the tools that check the storage, kernel modules. \
Everything else of a device is in its containers."
LICENSE = "MIT"

# Further packages, such as firmware.
COXSWAIN_SYSTEM_INSTALL ?= ""
PACKAGE_INSTALL = "coxswain coxctl busybox base-files base-passwd kmod e2fsprogs-e2fsck ${COXSWAIN_RUNTIME} ${COXSWAIN_SYSTEM_INSTALL}"
# Those that the machine's kernel has as modules; there may be none.
PACKAGE_INSTALL:append = " kernel-modules"
PACKAGE_EXCLUDE = "kernel-image-*"

IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
IMAGE_NAME_SUFFIX ?= ""
IMAGE_FSTYPES = "squashfs-zst"

inherit core-image coxswain-runtime

ROOTFS_POSTPROCESS_COMMAND += "coxswain_system"
coxswain_system() {
	for folder in dev proc root run storage sys tmp var; do
		install -d ${IMAGE_ROOTFS}/$folder
	done
	# Coxswain shows itself there; its bytes are in the initial file system already.
	: >${IMAGE_ROOTFS}${sbindir}/coxswain
	ln -sf ${@os.path.relpath(d.getVar('sbindir'), d.getVar('bindir'))}/coxswain ${IMAGE_ROOTFS}${bindir}/coxswain
	# A clock that shows an earlier time is wrong.
	echo ${@d.getVar('REPRODUCIBLE_TIMESTAMP_ROOTFS') or '1767225600'} >${IMAGE_ROOTFS}${sysconfdir}/coxswain/build-time
	ln -sf /run/resolv.conf ${IMAGE_ROOTFS}${sysconfdir}/resolv.conf
}
