# An image recipe becomes a container: its root file system is one squashfs, and what else run.json says are options of
# `coxctl revision add-container`. Name it in COXSWAIN_CONTAINERS of a recipe that inherits coxswain-revision.
#
#   inherit image coxswain-container
#   IMAGE_INSTALL = "my-application"
#   COXSWAIN_CONTAINER_OPTIONS = "--goal READY --memory 64M --volume data:/var/lib/my -- /usr/bin/my-application --port 80"

COXSWAIN_CONTAINER ?= "${@d.getVar('PN').removesuffix('-container')}"
# As a shell reads them.
COXSWAIN_CONTAINER_OPTIONS ?= ""

IMAGE_FSTYPES = "squashfs"
IMAGE_FEATURES = ""
IMAGE_LINGUAS ?= ""
# Containers of one image format: the machine's wic files, live images and the like are not theirs.
IMAGE_TYPEDEP:squashfs = ""
# Neither a kernel nor scripts for a first boot.
PACKAGE_EXCLUDE += "kernel-image-*"
ROOTFS_BOOTSTRAP_INSTALL = ""

ROOTFS_POSTPROCESS_COMMAND += "coxswain_mount_points"
coxswain_mount_points() {
	install -d ${IMAGE_ROOTFS}/dev ${IMAGE_ROOTFS}/etc ${IMAGE_ROOTFS}/proc ${IMAGE_ROOTFS}/run ${IMAGE_ROOTFS}/sys ${IMAGE_ROOTFS}/tmp
}

# Beside the image: what the class coxswain-revision gives to coxswain-revision, a line for a shell.
IMAGE_POSTPROCESS_COMMAND += "coxswain_describe_container"
coxswain_describe_container() {
	cat >${IMGDEPLOYDIR}/${PN}-${MACHINE}.container <<'END'
set -- ${COXSWAIN_CONTAINER} ${IMAGE_LINK_NAME}.squashfs ${COXSWAIN_CONTAINER_OPTIONS}
END
}
coxswain_describe_container[vardeps] += "COXSWAIN_CONTAINER COXSWAIN_CONTAINER_OPTIONS"
