#!/usr/bin/env bash
# Make the image that tests build on, Debian with Python, without any registry: debootstrap and `docker import`.
# base-image.sh NAME [FOLDER]: with a folder, its packed files are kept there and used the next time.
set -euo pipefail
name=$1
kept=${2:-}
if [ -n "$kept" ] && [ -f "$kept/base.tar" ]; then
  exec docker import --change "ENV PYTHONUNBUFFERED=1" "$kept/base.tar" "$name"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase --include=python3-minimal,python-is-python3,python3-urllib3 \
  "${DEBIAN_SUITE:-bookworm}" "$work/root" >"$work/log" || { tail "$work/log" >&2; exit 1; }
unwanted=("dev/*" "var/cache/apt/*" "var/lib/apt/lists/*" var/lib/dpkg usr/share/doc usr/share/locale usr/share/man usr/share/perl5
  usr/share/zoneinfo usr/lib/apt "usr/bin/perl*" "usr/lib/x86_64-linux-gnu/perl*" usr/lib/x86_64-linux-gnu/gconv)
tar -C "$work/root" "${unwanted[@]/#/--exclude=./}" -cf "$work/base.tar" .
docker import --change "ENV PYTHONUNBUFFERED=1" "$work/base.tar" "$name"
if [ -n "$kept" ]; then
  mkdir -p "$kept" && mv "$work/base.tar" "$kept/base.tar"
fi
