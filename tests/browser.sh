#!/usr/bin/env bash
# Puts Chromium with its driver on this machine where they are missing, and selenium into .venv.
set -euo pipefail
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
  if ! command -v apt-get >/dev/null; then
    echo "browser: chromium is missing and there is no apt-get here; install chromium and chromedriver" >&2
    exit 1
  fi
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends chromium chromium-driver
fi
.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt 'selenium>=4.20'
