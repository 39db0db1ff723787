#!/usr/bin/env bash
# The closing lines of `make test`: what this machine let it test, and what not.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -d ../shared/data ]; then
    echo "tested: with ../shared/data: other models and footage, too"
else
    echo "tested: without ../shared/data: the tests of other models and footage were skipped"
fi
if [ -s .cache/skipped ]; then
    sed 's/^/skipped: /' .cache/skipped
fi
echo "tested: everything passed"
