#!/bin/sh
# lay.sh PROGRAM SBOM ROOT: lays out what the image adds to its base. The Dockerfile runs it, and so does the test of the image.
set -eu
program=$1 sbom=$2 root=$3

install -D -m 0755 "$program" "$root/usr/bin/o365feed"
install -D -m 0644 LICENSE "$root/usr/share/doc/o365feed/LICENSE"
install -D -m 0644 "$sbom" "$root/usr/share/sbom/o365feed.cdx.json"
install -d -m 0755 "$root/etc/o365feed"
# Else the files' times would be those of the build, and two builds never the same.
find "$root" -mindepth 1 -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
