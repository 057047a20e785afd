# Gives a revision (class coxswain-revision) a kernel: the machine's kernel image, an initial file system with Coxswain as its first
# process, and a
# device tree. Kernel modules are in the system image (recipe coxswain-system).

COXSWAIN_KERNEL ?= "${KERNEL_IMAGETYPE}"
COXSWAIN_INITRAMFS ?= "coxswain-initramfs"
COXSWAIN_INITRAMFS_FILE ?= "${COXSWAIN_INITRAMFS}-${MACHINE}.${@d.getVar('INITRAMFS_FSTYPES').split()[0]}"
# Of the deploy folder. The board's boot loader may have one of its own; the Raspberry Pi's wants the revision's.
COXSWAIN_DEVICETREE ?= "${@os.path.basename(([''] + (d.getVar('KERNEL_DEVICETREE') or '').split())[-1])}"
COXSWAIN_STEPS:append = " coxswain_bsp"
do_compile[depends] += "virtual/kernel:do_deploy ${COXSWAIN_INITRAMFS}:do_image_complete"

coxswain_bsp() {
	# The names under which they are in the manifest say nothing of this build.
	install -d ${B}/bsp
	cp -L ${DEPLOY_DIR_IMAGE}/${COXSWAIN_KERNEL} ${B}/bsp/kernel.img
	cp -L ${DEPLOY_DIR_IMAGE}/${COXSWAIN_INITRAMFS_FILE} ${B}/bsp/initrd.img
	set -- --linux ${B}/bsp/kernel.img --initrd ${B}/bsp/initrd.img
	if [ -n "${COXSWAIN_DEVICETREE}" ]; then
		cp -L ${DEPLOY_DIR_IMAGE}/${COXSWAIN_DEVICETREE} ${B}/bsp/board.dtb
		set -- "$@" --fdt ${B}/bsp/board.dtb
	fi
	coxswain-revision bsp ${B}/revision "$@"
	coxswain-revision source ${B}/revision bsp recipe=${PN} ${COXSWAIN_SOURCE}
}
