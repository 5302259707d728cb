#!/bin/sh
# Makes sure that a Chromium is here for the browser test of the report; installs Debian's as root.
set -eu
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" > /dev/null 2>&1; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null 2>&1; then
    echo "installing chromium for the browser test of the report"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium > /dev/null && exit 0
fi
echo "no Chromium found: install it (Debian: apt-get install chromium)," >&2
echo "or leave its test out with MIXPLAN_NO_BROWSER=1" >&2
if [ "${MIXPLAN_NO_BROWSER:-}" = 1 ]; then exit 0; fi
exit 1
