#!/bin/sh
# /init of the initramfs: loads the modules, mounts the system's squashfs and goes there. runc cannot pivot_root while / is the
# initramfs itself.
mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/modules/$module" || echo "cannot load $module"
done </modules/order
mount -t squashfs -o ro /dev/vda /system || exec sh
umount /proc
mount -o move /dev /system/dev
exec switch_root /system /init
