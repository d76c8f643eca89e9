#!/bin/bash
# boot.sh DIRECTORY CGROUP - becomes systemd over a copy of this machine's file system, in which nothing is ever written
# back. Called as process 1 of namespaces of its own: mounts, processes, network, names.
set -euo pipefail
directory=$1 cgroup=$2

mount -t tmpfs tmpfs "$directory"
mkdir "$directory"/{upper,work,root,cgroup}
mount -t overlay overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" "$directory/root"
# A place in the tree of control groups that can be removed afterwards.
mount -t cgroup2 cgroup2 "$directory/cgroup"
mkdir "$directory/cgroup/$cgroup"
echo 0 >"$directory/cgroup/$cgroup/cgroup.procs"
umount "$directory/cgroup"

root=$directory/root
mount -t proc proc "$root/proc"
# The settings of the kernel, but for those of the network, are this machine's.
mount -o bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t bpf bpf "$root/sys/fs/bpf"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
# None of this machine's services.
rm -rf "$root"/etc/systemd/system/* "$root"/lib/systemd/system/*.wants "$root"/etc/fstab "$root"/etc/rc?.d
rm -f "$root/usr/sbin/policy-rc.d"
cat >"$root/etc/systemd/system/test.target" <<'UNIT'
[Unit]
DefaultDependencies=no
Wants=systemd-journald.service
UNIT

ip link set lo up
ip link add eth0 type veth peer name eth1
ip link set eth0 up
ip link set eth1 up
# shellcheck disable=SC2016  # for the inner shell
exec unshare --cgroup bash -c 'mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup" && exec chroot "$1" env -i container=other \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=test.target --log-target=null --show-status=no' - "$root"
