# Coxswain's boot script for U-Boot: mkimage -A arm64 -T script -d boot.cmd boot.scr
#
# The board's U-Boot sets devtype, devnum and the *_addr_r addresses, as its distro boot does. It, or lines before these, may also set:
#   cx_part       partition of the storage (default 2)
#   cx_note_part  partition that holds one note and nothing else; see below
#   cx_options    kernel options of the board, such as console=
#   cx_go         how a kernel is started (default booti; bootz on 32-bit ARM)
#   cx_fit        configuration of a FIT image, such as #conf-1
#
# Only pv_rev, pv_try and the note that it was started decide. A trial is started only after the note is durable. Where they are:
#   without cx_note_part  in U-Boot's environment, which must be kept in two copies (CONFIG_SYS_REDUNDAND_ENVIRONMENT): bootloader = "uboot"
#   with cx_note_part     in boot/uboot.txt in the storage, and the note in the first sector of that partition: bootloader =
#                         "uboot-pantavisor". For a U-Boot that keeps its environment in one copy, or not at all; it is never saved.

if test -z "${cx_part}"; then setenv cx_part 2; fi
setenv cx_trial

if test -n "${cx_note_part}"; then
	setenv pv_rev
	setenv pv_try
	setenv cx_arm
	setenv cx_note
	if load ${devtype} ${devnum}:${cx_part} ${kernel_addr_r} /boot/uboot.txt; then env import -b ${kernel_addr_r} ${filesize} pv_rev pv_try cx_arm; fi
	part start ${devtype} ${devnum} ${cx_note_part} cx_sector
	if ${devtype} read ${kernel_addr_r} ${cx_sector} 1; then env import -c ${kernel_addr_r} 200 cx_note; fi
	# Each arming has a number of its own: the same name may be tried again. A note that cannot be read costs one more start.
	if test -n "${pv_try}" && test "${cx_note}" != "${pv_try}:${cx_arm}"; then
		setenv cx_note ${pv_try}:${cx_arm}
		if env export -c -s 200 ${kernel_addr_r} cx_note && ${devtype} write ${kernel_addr_r} ${cx_sector} 1; then
			setenv cx_trial ${pv_try}
		else
			echo "Coxswain: the try of ${pv_try} cannot be counted; it is not started"
		fi
	fi
	if test -z "${pv_rev}"; then setenv pv_rev 0; fi
else
	# No revision is named on the first boot, or when both copies were lost: the built-in environment is saved, and the factory revision runs.
	if test -z "${pv_rev}"; then
		setenv pv_rev 0
		setenv pv_try
		setenv pv_tried
		saveenv
	fi
	if test -n "${pv_try}" && test "${pv_tried}" != "1"; then
		setenv pv_tried 1
		if saveenv; then
			setenv cx_trial ${pv_try}
		else
			echo "Coxswain: the try of ${pv_try} cannot be counted; it is not started"
		fi
	fi
fi

# From here on nothing is saved.
if test -z "${cx_go}"; then setenv cx_go 'booti ${kernel_addr_r} ${cx_initrd} ${cx_fdt}'; fi
setenv cx_dtb 'setenv cx_fdt ${fdtcontroladdr}; if load ${devtype} ${devnum}:${cx_part} ${fdt_addr_r} ${cx_dir}/pv-fdt.dtb; then setenv cx_fdt ${fdt_addr_r}; fi'
setenv cx_ramdisk 'setenv cx_initrd -; if load ${devtype} ${devnum}:${cx_part} ${ramdisk_addr_r} ${cx_dir}/pv-initrd.img; then setenv cx_size ${filesize}; for cx_n in 0 1 2 3 4 5 6 7; do run cx_addon; done; setenv cx_initrd ${ramdisk_addr_r}:${cx_size}; fi'
setenv cx_addon 'setexpr cx_end ${ramdisk_addr_r} + ${cx_size}; if load ${devtype} ${devnum}:${cx_part} ${cx_end} ${cx_dir}/pv-initrd.img.${cx_n}; then setexpr cx_size ${cx_size} + ${filesize}; fi'
setenv cx_kernel 'load ${devtype} ${devnum}:${cx_part} ${kernel_addr_r} ${cx_dir}/pv-kernel.img'
setenv cx_image 'load ${devtype} ${devnum}:${cx_part} ${ramdisk_addr_r} ${cx_dir}/pantavisor.fit'
setenv cx_start 'setenv cx_dir /trails/${cx_rev}/.pv; setenv bootargs ${cx_options} panic=5 coxswain.booted=${cx_rev}; if run cx_image; then bootm ${ramdisk_addr_r}${cx_fit}; fi; if run cx_kernel; then run cx_dtb; run cx_ramdisk; run cx_go; fi; echo "Coxswain: revision ${cx_rev} has no kernel that starts"'

# A command that starts a kernel comes back only when it could not. Then the next one is tried, the factory revision last.
if test -n "${cx_trial}"; then
	setenv cx_rev ${cx_trial}
	run cx_start
fi
setenv cx_rev ${pv_rev}
run cx_start
setenv cx_rev 0
run cx_start
sleep 5
reset
