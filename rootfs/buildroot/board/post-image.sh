#!/usr/bin/env bash
# Buildroot's post-image script for a device whose first process is Coxswain. From Buildroot's images it makes, in images/:
#   initrd.img      initial file system: Coxswain as /init, and Buildroot's root file system (rootfs.squashfs) beside it
#   revision.tgz    the revision: kernel, initrd.img, and the containers; `coxctl install` and the cloud clients take it
#   disk.img        a new device's disk: GRUB, and a storage whose factory revision it is
#
# BR2_ROOTFS_POST_SCRIPT_ARGS may hold, beside the first argument that Buildroot gives:
#   console=DEVICE          a console of the kernel; more than one is fine
#   containers=FOLDER       every FOLDER/NAME.container is a shell file that sets IMAGE (a squashfs file, in FOLDER or in images/) and, as
#                           an array, OPTIONS (of `coxctl revision add-container`); without it there is one container, which serves a page
#   size=MIB                of the storage, default 768; the first start grows it to the end of the disk
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
boot=$here/../../boot
images=${BINARIES_DIR:?run it from Buildroot}
export PATH="$HOST_DIR/bin:$HOST_DIR/sbin:$PATH"
# Buildroot's, when it builds reproducibly.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}

consoles=() containers='' size=768
for argument in "${@:2}"; do
    case $argument in
    console=*) consoles+=("$argument") ;;
    containers=*) containers=${argument#*=} ;;
    size=*) size=${argument#*=} ;;
    *)
        echo "$0: what is $argument?" >&2
        exit 2
        ;;
    esac
done
options="quiet ${consoles[*]:+${consoles[*]} }coxswain.bootloader=grub coxswain.storage-device=LABEL=coxswain"

work=$(mktemp -d "$BUILD_DIR/coxswain.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The initial file system. Its /init (post-build.sh put it aside) is linked to the C library; nothing else runs before the system is mounted.
mkdir -p "$work/initrd"/{dev,lib,proc,sys}
cp "$images/coxswain-init" "$work/initrd/init"
for library in "$TARGET_DIR"/lib/{ld-*,libc.so*,libm.so*,libgcc_s.so*}; do
    [ ! -e "$library" ] || cp -P "$library" "$work/initrd/lib/"
done
ln -s lib "$work/initrd/lib64"
cp "$images/rootfs.squashfs" "$work/initrd/system.squashfs"
find "$work/initrd" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$work/initrd" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible | gzip -9n) >"$images/initrd.img"

# A container of busybox, so that a first boot has something to show.
example() {
    local root=$work/example name
    mkdir -p "$root"/{bin,dev,etc,lib,proc,run,sys,tmp,www}
    cp "$TARGET_DIR/bin/busybox" "$root/bin/"
    for name in "$TARGET_DIR"/lib/{ld-*,libc.so*,libm.so*,libresolv.so*}; do
        [ ! -e "$name" ] || cp -P "$name" "$root/lib/"
    done
    ln -s lib "$root/lib64"
    echo '<!DOCTYPE html><title>Coxswain</title><p>It runs.' >"$root/www/index.html"
    mksquashfs "$root" "$work/web.squashfs" -noappend -all-root -quiet -no-progress >/dev/null
    containers=$work
    cat >"$work/web.container" <<'END'
IMAGE=web.squashfs
OPTIONS=(--health-http 80 --memory 32M -- /bin/busybox httpd -f -p 80 -h /www)
END
}

revision=$work/revision
[ -n "$containers" ] || example
for description in "$containers"/*.container; do
    name=$(basename "$description" .container)
    IMAGE='' OPTIONS=()
    # shellcheck disable=SC1090    # the file is the person's who builds
    . "$description"
    image=$containers/$IMAGE
    [ -e "$image" ] || image=$images/$IMAGE
    coxswain-revision container "$revision" "$name" "$image" "${OPTIONS[@]}"
    coxswain-revision source "$revision" "$name" source=buildroot "image=$IMAGE"
done
for kernel in bzImage Image zImage; do
    [ ! -e "$images/$kernel" ] || break
done
mkdir "$work/bsp"
cp "$images/$kernel" "$work/bsp/kernel.img"
cp "$images/initrd.img" "$work/bsp/initrd.img"
coxswain-revision bsp "$revision" --linux "$work/bsp/kernel.img" --initrd "$work/bsp/initrd.img"
coxswain-revision source "$revision" bsp source=buildroot
coxswain-revision bundle "$revision" "$images/revision.tgz"

# The storage.
coxswain make-storage --storage "$work/storage" --bootloader grub "$revision"
coxswain check --storage "$work/storage" >/dev/null
"$here/../../filesystem" "$work/storage" "$images/storage.ext4" "$size" coxswain 636f7873-7761-496e-a073-73746f726167

# The disk. Buildroot's GRUB lies in images/efi-part; what it runs is ours.
{
    printf 'set cx_options="%s"\n' "$options"
    cat "$boot/grub/grub.cfg"
} >"$images/efi-part/EFI/BOOT/grub.cfg"
find "$images/efi-part" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir "$work/empty"
genimage --rootpath "$work/empty" --tmppath "$work/genimage" --inputpath "$images" --outputpath "$images" --config "$here/genimage.cfg" >/dev/null
