#!/bin/bash
# Becomes a systemd with nothing but our unit, in the namespaces that it was started in (tests/deploy/systemd.py). It sees
# the machine's files read-only and its own folders for everything that is written; no unit of the machine's is known to it.
# BOX: the test's folder, `/run/box` in here; ROOT: this repository; PYTHON: the interpreter's installation; PACKAGES: the
# `lib` of the virtual environment. All of them may lie where no other user may look, so they are mounted elsewhere.
set -eu
test "$$" = 1 # or we are not in a namespace of our own
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/box /run/opt/bin /run/opt/python /run/opt/lib /run/opt/src
mount --bind "$BOX" /run/box
mount --bind "$PYTHON" /run/opt/python
mount --bind "$PACKAGES" /run/opt/lib
mount --bind "$ROOT" /run/opt/src
echo 'home = /opt/modelport/python/bin' > /run/opt/pyvenv.cfg
ln -s /opt/modelport/python/bin/python3 /run/opt/bin/python
cat > /run/opt/bin/modelport <<'PROGRAM'
#!/opt/modelport/bin/python -P
import sys
sys.path.insert(0, "/opt/modelport/src")
from app.__main__ import main
main()
PROGRAM
chmod 755 /run/opt/bin/modelport
# VLLM: the virtual environment of a vLLM, where the test has one.
if test -n "$VLLM"; then
    mkdir -p /run/opt/vllm/bin /run/opt/vllm/lib
    mount --bind "$VLLM/lib" /run/opt/vllm/lib
    mount -o remount,bind,ro /run/opt/vllm/lib
    cp /run/opt/pyvenv.cfg /run/opt/vllm/
    ln -s /opt/modelport/python/bin/python3 /run/opt/vllm/bin/python
fi
cp -a /etc /run/etc
echo 'modelport:x:987:987::/var/lib/modelport:/usr/sbin/nologin' >> /run/etc/passwd
echo 'modelport:x:987:' >> /run/etc/group
mkdir /run/etc/modelport
mount --bind "$BOX/etc" /run/etc/modelport

# From here on, what is not mounted anew cannot be written.
for place in / /dev /run/opt/python /run/opt/lib /run/opt/src; do
    mount -o remount,bind,ro "$place"
done
for folder in /tmp /var/tmp /var/lib /var/cache /var/log /opt /dev/shm; do
    mode=755
    case "$folder" in /tmp | /var/tmp | /dev/shm) mode=1777 ;; esac
    mount -t tmpfs -o "mode=$mode" tmpfs "$folder"
done
mkdir /opt/modelport
mount --rbind /run/opt /opt/modelport
mount --rbind /run/etc /etc
mount -o remount,bind,ro /sys
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for folder in / /root /usr /dev "$ROOT" /opt/modelport/src; do
    if test -w "$folder"; then echo "$folder of the machine could be written" >&2; exit 1; fi
done
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/run/box/units \
    /lib/systemd/systemd --system --unit=box.target --log-target=console --log-level=info --show-status=no
