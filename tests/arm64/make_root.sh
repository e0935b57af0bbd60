#!/usr/bin/env bash
# A Debian 12 root of aarch64 under emulation, with the packages that the runtime needs: make_root.sh FOLDER
#
# As root, on Debian or Ubuntu; about ten minutes and 1 GB once, then FOLDER is kept and nothing is done again.
# It installs qemu-user-static, debootstrap and g++-aarch64-linux-gnu where they are missing, and tells the kernel to run
# aarch64 programs through qemu. DEBIAN_MIRROR names another mirror than debootstrap's own.
set -euo pipefail
folder=$1
packages=(numpy jinja2 onnxruntime soundfile soxr tokenizers onnx ml-dtypes)
binfmt=/proc/sys/fs/binfmt_misc

in_root() {  # it sees nothing of this machine's environment
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 chroot "$folder" "$@"
}

for command in qemu-aarch64-static:qemu-user-static debootstrap:debootstrap aarch64-linux-gnu-g++:g++-aarch64-linux-gnu; do
  command -v "${command%%:*}" > /dev/null || apt-get install -y -qq "${command##*:}"
done
mountpoint -q $binfmt || mount -t binfmt_misc none $binfmt
if [ ! -e $binfmt/qemu-aarch64 ]; then
  # ELF, 64 bit, little endian, EM_AARCH64; F: the interpreter is opened now, so that it serves a root without it
  header='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  printf '%s' ":qemu-aarch64:M::$header:$mask:$(command -v qemu-aarch64-static):F" > $binfmt/register
fi
if [ -e "$folder/complete" ]; then
  exit 0
fi
if [ ! -e "$folder/etc/debian_version" ] || [ -e "$folder/debootstrap" ]; then
  debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,python3-venv,libsndfile1 bookworm "$folder" \
    ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
  in_root /debootstrap/debootstrap --second-stage
fi

# Fetched here, with this machine's settings of pip, and installed there.
python=$(in_root python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
platforms=()
for glibc in 2_17 2_24 2_26 2_27 2_28 2_31 2_34; do
  platforms+=(--platform "manylinux_${glibc}_aarch64")
done
python3 -m pip download -q --only-binary=:all: "${platforms[@]}" --platform manylinux2014_aarch64 \
  --python-version "$python" -d "$folder/wheels" "${packages[@]}"
in_root python3 -m venv /opt/ltbm
in_root /opt/ltbm/bin/pip install -q --no-index --find-links /wheels "${packages[@]}"
touch "$folder/complete"
