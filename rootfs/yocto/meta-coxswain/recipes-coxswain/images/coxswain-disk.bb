SUMMARY = "Disk image: boot partition, and a storage with the factory revision"
LICENSE = "MIT"

COXSWAIN_FACTORY ?= "coxswain-factory"

# The disk has no root file system of its own: everything is in the storage.
PACKAGE_INSTALL = ""
IMAGE_INSTALL = ""
IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
ROOTFS_BOOTSTRAP_INSTALL = ""
IMAGE_FSTYPES = "wic wic.bmap"
WKS_FILE ?= "${@'coxswain-note.wks.in' if d.getVar('COXSWAIN_BOOTLOADER') == 'uboot-pantavisor' else 'coxswain.wks.in'}"
WKS_SEARCH_PATH:prepend = "${COXSWAIN_LAYERDIR}/files/wic:"
WKS_FILE_DEPENDS = ""

inherit image

do_image_wic[depends] += "${COXSWAIN_FACTORY}:do_deploy"
