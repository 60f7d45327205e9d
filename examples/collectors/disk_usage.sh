#!/bin/sh
# A Nightshift collector in POSIX shell: how full each file system is.
#
# Run anew every interval: it prints what it saw, one JSON object a line, and ends.
#
#   [sources.disk_usage]
#   type = "exec"
#   command = ["examples/collectors/disk_usage.sh"]
#   interval_secs = 60
#
# Arguments: paths to look at (default: all local file systems).
set -eu

# `df -P` is the portable form: one line each, sizes in 1024-byte blocks.
df -kP "$@" 2>/dev/null | awk '
    # Text into a JSON string: quotes and backslashes escaped, control characters dropped.
    function quote(text) {
        gsub(/\\/, "\\\\", text)
        gsub(/"/, "\\\"", text)
        gsub(/[\001-\037]/, "", text)
        return "\"" text "\""
    }
    NR > 1 && $2 > 0 {
        # A mount point may hold spaces: it is all that follows the fifth column.
        mount = $6
        for (i = 7; i <= NF; i++) mount = mount " " $i
        labels = "{\"mountpoint\":" quote(mount) ",\"device\":" quote($1) "}"
        printf "{\"v\":1,\"type\":\"metric\",\"name\":\"disk_used_ratio\",\"kind\":\"gauge\",\"value\":%.6f,\"labels\":%s}\n", $3 / $2, labels
        printf "{\"v\":1,\"type\":\"metric\",\"name\":\"disk_free_bytes\",\"kind\":\"gauge\",\"value\":%.0f,\"labels\":%s}\n", $4 * 1024, labels
        seen++
    }
    END {
        # Nothing seen is not "all well": the exit code says so, and standard error says why.
        if (!seen) {
            print "df shows no file system" > "/dev/stderr"
            exit 1
        }
        printf "{\"v\":1,\"type\":\"heartbeat\",\"status\":\"ok\",\"detail\":\"%d file systems\"}\n", seen
    }
'
