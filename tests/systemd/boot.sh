#!/bin/bash
# Starts systemd as the first process of namespaces of its own, on a copy of this machine's files, with the unit and a second one that looks at it.
# Called by tests/systemd/boot.rs, within them: boot.sh PROGRAM UNITS FOLDER. What is found comes into FOLDER; the last line says so.
set -eu
program=$1 units=$2 folder=$3

mount --make-rprivate /
mount -t tmpfs tmpfs "$folder/machine"
mkdir "$folder"/machine/{upper,work,root}
root=$folder/machine/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/machine/upper,workdir=$folder/machine/work" "$root"
mkdir -p "$root/found" "$root/old"
mount --bind "$folder" "$root/found"
mount -t proc proc "$root/proc"
# Settings of the kernel are the machine's, not this test's.
mount --bind /proc/sys "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"

# As docs/install/systemd.md says.
install -D -m 755 "$program" "$root/usr/local/bin/nodelocaldns"
install -D -m 644 -t "$root/etc/nodelocaldns" "$units/Corefile" "$units/environment"
install -D -m 644 -t "$root/etc/systemd/system" "$units/nodelocaldns.service"
sed -i 's/^KUBE_DNS_SERVICE_HOST=.*/KUBE_DNS_SERVICE_HOST=127.0.0.11/' "$root/etc/nodelocaldns/environment"
# Nothing else of the machine's is started.
mkdir "$root/etc/systemd/system/nodelocaldns.service.d"
cat >"$root/etc/systemd/system/nodelocaldns.service.d/alone.conf" <<END
[Unit]
DefaultDependencies=no
[Service]
StandardOutput=append:/found/log
StandardError=append:/found/log
END
cat >"$root/etc/systemd/system/look.service" <<END
[Unit]
DefaultDependencies=no
After=nodelocaldns.service
Wants=nodelocaldns.service
[Service]
Type=oneshot
StandardOutput=append:/found/look
StandardError=append:/found/look
ExecStart=/bin/bash /found/look.sh
ExecStopPost=/bin/systemctl --force --force poweroff
END
cat >"$folder/look.sh" <<'END'
until_() { for _ in {1..100}; do if "$@"; then return; fi; sleep 0.1; done; echo "in vain: $*"; }
is_healthy() { [ "$({ exec 3<>/dev/tcp/169.254.20.10/8080 && printf 'GET /health HTTP/1.0\r\n\r\n' >&3 && tail -n 1 <&3; } 2>/dev/null)" = OK ]; }
main_process() { systemctl show --property MainPID --value nodelocaldns; }
is_replaced() { [ "$(main_process)" != "$first" ] && is_healthy; }
until_ is_healthy
first=$(main_process)
server=$(cat "/proc/$first/task/$first/children")
for process in $first $server; do grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$process/status"; done
until_ nft list table inet nodelocaldns >/dev/null && echo intercepted
systemctl reload nodelocaldns && echo reloaded
kill -KILL "$first"
until_ is_replaced && echo restarted
systemctl stop nodelocaldns && systemctl show --property Result --property ExecMainStatus nodelocaldns
nft list tables
echo looked
END
ip link set lo up
# Where the kernel lacks the dummy driver.
ip link add nodelocaldns type bridge
ip link set nodelocaldns up

cd "$root"
pivot_root . old
umount -l old
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=look.service --log-target=console --show-status=no
