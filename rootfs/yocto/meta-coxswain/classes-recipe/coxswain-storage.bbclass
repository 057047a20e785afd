# Makes the two partitions of a new device's disk from a revision (class coxswain-revision): a storage whose factory revision it is, and a boot
# partition. The recipe coxswain-disk puts them into a disk image. Devices in the field get the bundle instead.

# In MiB. The first start grows the file system to its partition.
COXSWAIN_STORAGE_SIZE ?= "768"
# Files of the deploy folder, as IMAGE_BOOT_FILES has them: SOURCE or SOURCE;TARGET. And who deploys them.
COXSWAIN_BOOT_FILES ?= "${@coxswain_boot_files(d)}"
COXSWAIN_BOOT_DEPENDS ?= "coxswain-boot:do_deploy ${@'grub-efi:do_deploy' if d.getVar('COXSWAIN_BOOTLOADER') == 'grub' else ''}"
COXSWAIN_BOOT_SIZE_KIB ?= "65536"

require conf/image-uefi.conf

DEPENDS += "coxswain-native e2fsprogs-native dosfstools-native mtools-native"

def coxswain_boot_files(d):
    """What the boot partition holds."""
    if d.getVar("COXSWAIN_BOOTLOADER") == "grub":
        name = d.getVar("EFI_BOOT_IMAGE")
        return "grub-efi-%s;EFI/BOOT/%s coxswain/grub.cfg;EFI/BOOT/grub.cfg" % (name, name)
    return "coxswain/boot.scr;boot.scr"

COXSWAIN_STEPS:append = " coxswain_storage_tree"
coxswain_storage_tree() {
	coxswain make-storage --storage ${B}/storage --bootloader ${COXSWAIN_BOOTLOADER} ${B}/revision
	coxswain check --storage ${B}/storage
}

do_storage() {
	rm -f ${B}/boot.vfat
	# Of the image, not of the device.
	SOURCE_DATE_EPOCH=${COXSWAIN_TIME} coxswain-filesystem ${B}/storage ${B}/storage.ext4 ${COXSWAIN_STORAGE_SIZE} \
		${COXSWAIN_STORAGE_LABEL} 636f7873-7761-496e-a073-746f72616765
	mkfs.vfat -C -n BOOT -i 636f7873 --invariant ${B}/boot.vfat ${COXSWAIN_BOOT_SIZE_KIB}
	for file in ${@' '.join("'%s'" % file for file in d.getVar('COXSWAIN_BOOT_FILES').split())}; do
		target=${file#*;}
		folder=
		for part in $(dirname $target | tr / ' '); do
			folder=$folder/$part
			[ $part = . ] || mmd -i ${B}/boot.vfat -D s ::$folder
		done
		mcopy -i ${B}/boot.vfat ${DEPLOY_DIR_IMAGE}/${file%%;*} ::/$target
	done
}
do_storage[depends] += "${COXSWAIN_BOOT_DEPENDS}"
addtask storage after do_compile before do_deploy

do_deploy:append() {
	install -m 0644 ${B}/storage.ext4 ${DEPLOYDIR}/${PN}-${MACHINE}.storage.ext4
	install -m 0644 ${B}/boot.vfat ${DEPLOYDIR}/${PN}-${MACHINE}.boot.vfat
}
