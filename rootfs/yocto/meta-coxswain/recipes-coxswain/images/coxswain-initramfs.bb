SUMMARY = "Initial file system: Coxswain as the first process, and the system image beside it"
LICENSE = "MIT"

PACKAGE_INSTALL = "coxswain-init"

IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
IMAGE_NAME_SUFFIX ?= ""
IMAGE_FSTYPES = "${INITRAMFS_FSTYPES}"
ROOTFS_BOOTSTRAP_INSTALL = ""

inherit core-image

IMAGE_ROOTFS_SIZE = "8192"
IMAGE_ROOTFS_EXTRA_SPACE = "0"
# In KiB: the system image counts.
INITRAMFS_MAXSIZE ?= "262144"

do_rootfs[depends] += "coxswain-system:do_image_complete"
ROOTFS_POSTPROCESS_COMMAND += "coxswain_initramfs"
coxswain_initramfs() {
	install -d ${IMAGE_ROOTFS}/dev ${IMAGE_ROOTFS}/proc ${IMAGE_ROOTFS}/sys
	install -m 0644 ${DEPLOY_DIR_IMAGE}/coxswain-system-${MACHINE}.squashfs-zst ${IMAGE_ROOTFS}/system.squashfs
}
