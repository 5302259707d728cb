#!/bin/sh
# Makes sure that a Chromium is here for the browser test of the report; installs Debian's as root.
set -eu

found() {
    for name in chromium chromium-browser google-chrome chrome; do
        if command -v "$name" > /dev/null 2>&1; then return 0; fi
    done
    return 1
}

if found; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null 2>&1; then
    echo "installing chromium for the browser test of the report"
    # A source that cannot be reached must not keep the others from being used.
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 chromium > /dev/null || true
    if found; then exit 0; fi
fi
echo "no Chromium found: install it (Debian, as root: apt-get install chromium)," >&2
echo "or leave its test out with MIXPLAN_NO_BROWSER=1" >&2
if [ "${MIXPLAN_NO_BROWSER:-}" = 1 ]; then exit 0; fi
exit 1
