require ${@bb.utils.contains('DISTRO_FEATURES', 'coxswain', 'linux-coxswain.inc', '', d)}
