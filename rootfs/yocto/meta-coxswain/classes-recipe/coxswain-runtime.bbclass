# For images that run Coxswain: fails when they have nothing that runs containers.

ROOTFS_POSTPROCESS_COMMAND += "coxswain_runtime"
coxswain_runtime() {
	for program in containerd containerd-shim-runc-v2 runc; do
		if [ ! -e ${IMAGE_ROOTFS}${bindir}/$program ] && [ ! -e ${IMAGE_ROOTFS}${sbindir}/$program ]; then
			bbfatal "this image has no $program: add the layer meta-virtualization, or name packages that have it in COXSWAIN_RUNTIME"
		fi
	done
}
