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
tar -C "$work/root" --exclude=./dev/* --exclude=./var/cache/apt/* --exclude=./var/lib/apt/lists/* \
  --exclude=./usr/share/doc --exclude=./usr/share/locale -cf "$work/base.tar" .
docker import --change "ENV PYTHONUNBUFFERED=1" "$work/base.tar" "$name"
if [ -n "$kept" ]; then
  mkdir -p "$kept" && mv "$work/base.tar" "$kept/base.tar"
fi
