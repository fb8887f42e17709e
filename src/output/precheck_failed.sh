# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154  # the variables are those of the script around this

# xml TEXT: the text as an attribute's value.
xml() {
    local text=${1//'&'/'&amp;'}
    text=${text//'<'/'&lt;'}
    text=${text//'"'/'&quot;'}
    printf '%s' "${text}"
}

# precheck_failed TEXT: says why no server starts, and leaves it as a JUnit entry of its own.
precheck_failed() {
    # First of all: the file may not come to be.
    echo "slurm-disagg: the cache precheck failed: $1" >&2
    local suite case message
    suite="$(xml "${stageName:-}")"
    case="$(xml "${testOutputDir##*/}")"
    message="$(xml "$1")"
    mkdir -p "${jobWorkspace}"
    cat > "${jobWorkspace}/results-ct-precheck.xml" <<XML
<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="${suite}" tests="1" errors="0" failures="1" skipped="0">
<testcase classname="cache_transceiver_precheck" name="${case}"><failure message="${message}"/></testcase>
</testsuite></testsuites>
XML
}
