#!/bin/sh
# Buildroot's post-build script: makes the root file system the system of a device whose first process is Coxswain. It is one read-only
# image in the initial file system, which post-image.sh makes.
set -eu

target=${TARGET_DIR:?run it from Buildroot}
for folder in dev proc root run storage sys tmp usr/bin usr/sbin var; do mkdir -p "$target/$folder"; done
# Coxswain shows itself there; its bytes are in the initial file system already. A second build finds what the first one left.
if [ -s "$target/usr/sbin/coxswain" ]; then
    mkdir -p "$BINARIES_DIR"
    cp "$target/usr/sbin/coxswain" "$BINARIES_DIR/coxswain-init"
    : >"$target/usr/sbin/coxswain"
fi
ln -sf ../sbin/coxswain "$target/usr/bin/coxswain"
# It loads modules where nothing else does.
[ -e "$target/sbin/modprobe" ] || [ -e "$target/usr/sbin/modprobe" ] || ln -s ../bin/coxswain "$target/usr/sbin/modprobe"
# A clock that shows an earlier time is wrong.
mkdir -p "$target/etc/coxswain"
echo "${SOURCE_DATE_EPOCH:-1767225600}" >"$target/etc/coxswain/build-time"
ln -sf /run/resolv.conf "$target/etc/resolv.conf"
