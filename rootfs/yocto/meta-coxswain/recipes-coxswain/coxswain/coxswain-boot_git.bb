SUMMARY = "Boot scripts for GRUB and U-Boot"
DESCRIPTION = "They choose the revision's kernel and count the tries of a trial; see orchestrator/linux/bootloaders.md."
LICENSE = "MIT"

COXSWAIN_PARTS = "rootfs/boot"
require coxswain-source.inc

inherit deploy nopackages

B = "${WORKDIR}/build"

INHIBIT_DEFAULT_DEPS = "1"
DEPENDS = "u-boot-mkimage-native"
PACKAGE_ARCH = "${MACHINE_ARCH}"

# Options of every revision's kernel. The consoles are the machine's; the last line is what Coxswain must know to find its storage.
COXSWAIN_KERNEL_OPTIONS ?= "quiet ${@coxswain_consoles(d)}"
COXSWAIN_OPTIONS = "${COXSWAIN_KERNEL_OPTIONS} coxswain.bootloader=${COXSWAIN_BOOTLOADER} coxswain.storage-device=LABEL=${COXSWAIN_STORAGE_LABEL}"
# What mkimage calls the architecture.
COXSWAIN_UBOOT_ARCH ?= "${@{'aarch64': 'arm64', 'x86_64': 'x86_64', 'i686': 'x86', 'riscv64': 'riscv', 'riscv32': 'riscv'}.get(d.getVar('TARGET_ARCH'), d.getVar('TARGET_ARCH'))}"

def coxswain_consoles(d):
    """console= for each of SERIAL_CONSOLES; the first one last, because the kernel's messages of an early panic go there."""
    consoles = [one.split(";") for one in (d.getVar("SERIAL_CONSOLES") or "").split()]
    return " ".join("console=%s,%s" % (name, speed) for speed, name in reversed(consoles))

do_configure[noexec] = "1"

do_compile() {
	{
		printf 'set cx_label="%s"\nset cx_options="%s"\n' "${COXSWAIN_STORAGE_LABEL}" "${COXSWAIN_OPTIONS}"
		cat ${S}/rootfs/boot/grub/grub.cfg
	} >${B}/grub.cfg
	# With uboot-pantavisor, the disk has a partition for the note of a try (files/wic/coxswain-note.wks.in).
	{
		[ "${COXSWAIN_BOOTLOADER}" != uboot-pantavisor ] || printf 'setenv cx_note_part 2\nsetenv cx_part 3\n'
		printf 'setenv cx_options "%s"\n' "${COXSWAIN_OPTIONS}"
		cat ${S}/rootfs/boot/uboot/boot.cmd
	} >${B}/boot.cmd
	uboot-mkimage -A ${COXSWAIN_UBOOT_ARCH} -T script -C none -n coxswain -d ${B}/boot.cmd ${B}/boot.scr
}

do_install[noexec] = "1"

do_deploy() {
	install -d ${DEPLOYDIR}/coxswain
	install -m 0644 ${B}/grub.cfg ${B}/boot.scr ${DEPLOYDIR}/coxswain/
}
addtask deploy after do_compile before do_build
