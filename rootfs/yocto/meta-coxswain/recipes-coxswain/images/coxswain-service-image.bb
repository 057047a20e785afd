SUMMARY = "A system with Coxswain as a service, below systemd or a System V init"
LICENSE = "MIT"

inherit core-image coxswain-runtime

IMAGE_INSTALL += "packagegroup-coxswain"
