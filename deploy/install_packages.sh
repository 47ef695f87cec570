#!/usr/bin/env bash
# Installs the lines of deploy/packages.txt that begin with one of the given
# words (build, test) and are not installed yet. Does nothing, in a fraction of
# a second, when all are there.
#
# Usage: deploy/install_packages.sh build [test]
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=()
for group in "$@"; do
  while read -r word package; do
    [[ $word == "$group" ]] && wanted+=("$package")
  done < <(grep -v '^#' deploy/packages.txt)
done

installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' \
  "${wanted[@]}" 2>/dev/null | sed -n 's/^installed //p') || true
missing=()
for package in "${wanted[@]}"; do
  grep -qx -- "$package" <<<"$installed" || missing+=("$package")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || {
    echo "Missing packages: ${missing[*]}." \
         "Install them as root, or install sudo." >&2
    exit 1
  }
  as_root=(sudo)
fi
echo "Installing ${#missing[@]} packages: ${missing[*]}" >&2
"${as_root[@]}" apt-get update -q >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
