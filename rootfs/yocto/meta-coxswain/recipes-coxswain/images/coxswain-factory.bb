SUMMARY = "Factory revision: kernel, initial file system and an example container"
LICENSE = "MIT"

# A device's own factory recipe is a copy of this one with its own containers.
COXSWAIN_CONTAINERS = "coxswain-example-container"

inherit coxswain-revision coxswain-bsp coxswain-storage
