# Makes a revision: one manifest and its objects, and a bundle of both in one file, ${DEPLOY_DIR_IMAGE}/${PN}-${MACHINE}.tgz, which
# `coxctl install` and the cloud clients take.
#
#   inherit coxswain-revision
#   COXSWAIN_CONTAINERS = "web database"          # recipes that inherit coxswain-container
#   COXSWAIN_KEYS = "device.json _config/web/etc/web.conf"     # files below ${COXSWAIN_KEYS_DIR}; each is a key of the manifest
#
# With coxswain-bsp the revision has a kernel, with coxswain-storage it becomes the factory revision of a storage.

inherit deploy nopackages

PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"
DEPENDS += "coxctl-native"
B = "${WORKDIR}/build"

COXSWAIN_CONTAINERS ?= ""
COXSWAIN_KEYS ?= ""
COXSWAIN_KEYS_DIR ?= "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"
# Where a part comes from, in its src.json: NAME=VALUE, as a shell reads them. Nothing that differs from build to build belongs here.
COXSWAIN_SOURCE ?= "source=yocto machine=${MACHINE} distro='${DISTRO} ${DISTRO_VERSION}'"
# The time stamp of what is made.
COXSWAIN_TIME ?= "${@d.getVar('REPRODUCIBLE_TIMESTAMP_ROOTFS') or '1767225600'}"
# Shell functions that add further parts to ${B}/revision.
COXSWAIN_STEPS ?= ""

do_configure[noexec] = "1"
do_install[noexec] = "1"

do_compile[cleandirs] = "${B}"
do_compile[depends] += "${@' '.join('%s:do_image_complete' % name for name in d.getVar('COXSWAIN_CONTAINERS').split())}"
do_compile() {
	export SOURCE_DATE_EPOCH=${COXSWAIN_TIME}
	for recipe in ${COXSWAIN_CONTAINERS}; do
		. ${DEPLOY_DIR_IMAGE}/$recipe-${MACHINE}.container
		name=$1
		image=$2
		shift 2
		coxswain-revision container ${B}/revision $name ${DEPLOY_DIR_IMAGE}/$image "$@"
		coxswain-revision source ${B}/revision $name recipe=$recipe ${COXSWAIN_SOURCE}
	done
	[ -e ${B}/revision/manifest.json ] || coxctl revision new ${B}/revision
	for key in ${COXSWAIN_KEYS}; do
		coxctl revision set ${B}/revision $key ${COXSWAIN_KEYS_DIR}/$key
	done
	for step in ${COXSWAIN_STEPS}; do
		$step
	done
	coxswain-revision bundle ${B}/revision ${B}/revision.tgz
}
do_compile[vardeps] += "${COXSWAIN_STEPS}"

do_deploy() {
	install -m 0644 ${B}/revision.tgz ${DEPLOYDIR}/${PN}-${MACHINE}.tgz
}
addtask deploy after do_compile before do_build
