#!/bin/sh
# The init under which coxswain runs: pure cgroup v2, a read-only system, everything else on tmpfs and on the disk below /storage.
# The settings come from the kernel's command line. It carries out what coxswain's exit code asks for, and runs the lines that come on the second serial port.
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
read -r up _ </proc/uptime
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /tmp
mount -t tmpfs var /var
mkdir -p /run/times /var/lib /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "$up" >/run/times/init
hostname device
ip link set lo up

storage() { mount -t ext4 -o errors=remount-ro /dev/vdb /storage; }
# A power cut may tear the journal's last commit block, or the superblock: then the kernel does not mount it.
storage || {
    e2fsck -p /dev/vdb
    [ $? -le 1 ] || e2fsck -fy /dev/vdb
    storage
}
(
    until [ -S /run/coxswain/control.sock ]; do sleep 0.05; done
    read -r up _ </proc/uptime
    echo "$up" >/run/times/socket
) &

(
    stty -F /dev/ttyS1 raw -echo
    exec 3<>/dev/ttyS1
    echo "@up" >&3
    while IFS= read -r line <&3; do
        sh -c "$line" </dev/null >/run/answer 2>&1 3>&-
        code=$?
        cat /run/answer >&3
        printf '\n@end %s\n' "$code" >&3
    done
) &

while :; do
    coxswain --storage /storage
    code=$?
    # A test killed it: as a service it would be started again.
    [ $code = 137 ] || break
done
echo "coxswain ended with exit code $code"
umount /storage || mount -o remount,ro /storage
case $code in
3) exec poweroff -f ;;
4) exec reboot -f ;;
esac
echo "PANIC: nobody asked for that"
sleep 1000000
