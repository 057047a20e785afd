# Coxswain's boot script for U-Boot: mkimage -A arm64 -T script -d boot.cmd boot.scr
#
# The board's U-Boot sets devtype, devnum and the *_addr_r addresses, as its distro boot does, and keeps its environment in two copies
# (CONFIG_SYS_REDUNDAND_ENVIRONMENT). It may also set:
#   cx_part     partition of the storage (default 2)
#   cx_options  kernel options of the board, such as console=
#   cx_go       how a kernel is started (default booti; bootz on 32-bit ARM)
#   cx_fit      configuration of a FIT image, such as #conf-1
#
# Only the environment's pv_rev, pv_try and pv_tried decide. A trial is started only after it is durable that it was.

# No revision is named on the first boot, or when both copies were lost: the built-in environment is saved, and the factory revision runs.
if test -z "${pv_rev}"; then
	setenv pv_rev 0
	setenv pv_try
	setenv pv_tried
	saveenv
fi

setenv cx_trial
if test -n "${pv_try}" && test "${pv_tried}" != "1"; then
	setenv pv_tried 1
	if saveenv; then
		setenv cx_trial ${pv_try}
	else
		echo "Coxswain: the try of ${pv_try} cannot be counted; it is not started"
	fi
fi

# From here on nothing is saved.
if test -z "${cx_part}"; then setenv cx_part 2; fi
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
