SUMMARY = "A container that serves one page with busybox"
LICENSE = "MIT"

inherit image coxswain-container

COXSWAIN_CONTAINER = "web"
COXSWAIN_CONTAINER_OPTIONS = "--health-http 80 --memory 32M -- /bin/busybox httpd -f -p 80 -h /www"
IMAGE_INSTALL = "busybox base-files"

ROOTFS_POSTPROCESS_COMMAND += "coxswain_example_page"
coxswain_example_page() {
	install -d ${IMAGE_ROOTFS}/www
	echo '<!DOCTYPE html><title>Coxswain</title><p>It runs.' >${IMAGE_ROOTFS}/www/index.html
}
