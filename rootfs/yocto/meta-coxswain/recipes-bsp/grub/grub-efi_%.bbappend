# Coxswain's grub.cfg finds the storage by its label and counts the tries of a trial.
GRUB_BUILDIN:append = "${@bb.utils.contains('DISTRO_FEATURES', 'coxswain', ' search_label echo sleep reboot', '', d)}"
