SUMMARY = "Coxswain as a service, its tool, and the cloud clients that are chosen"
LICENSE = "MIT"

# Such as "hawkbit azure".
COXSWAIN_CLOUDS ?= ""

inherit packagegroup

RDEPENDS:${PN} = "coxswain-service coxctl ${@' '.join('coxswain-%s' % cloud for cloud in d.getVar('COXSWAIN_CLOUDS').split())}"
