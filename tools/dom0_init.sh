#!/bin/busybox sh
# The first process of dom0: device nodes, Xen's modules, then the tests; their results go to the second serial line.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/tmp
export PYTHONPATH=/v2e:/site PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mkdir /dev/shm
for module in xen-privcmd xen-evtchn xen-gntdev xen-gntalloc xenfs; do
    insmod /modules/$module.ko
done
mount -t xenfs xenfs /proc/xen
ip link set lo up
stty -F /dev/ttyS1 raw -echo 115200
export V2E_RESULTS=/dev/ttyS1 V2E_ONLY=/v2e/only
PYTEST_ADDOPTS=$(cat /v2e/arguments)
export PYTEST_ADDOPTS
cd /v2e/tests/xen/dom0 || poweroff -f
python3 -X faulthandler -m pytest -c /dev/null --rootdir . -p no:cacheprovider -p pytest_timeout -o timeout=240 \
    --import-mode importlib -o pythonpath=. --color no -q . 2>&1
echo "status $?" > $V2E_RESULTS
poweroff -f
