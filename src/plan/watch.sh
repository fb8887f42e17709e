# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Processes that a rank leaves behind at its end would hold back the report of that end, and may outlive the job: they
# are killed. After a SIGTERM, which Slurm sends to all processes of a step, they have time to end by themselves.
left() {
    # shellcheck disable=SC2013  # no name has blanks
    for file in $(grep -lsFxz "DISAGG_RANK=$1" /proc/[0-9]*/environ); do file=${file%/environ}; echo "${file#/proc/}"; done
}
watch() {
    stopped=0
    trap 'stopped=20' TERM
    trap '' HUP INT QUIT USR1 USR2
    # It has its output when it has become its command.
    tries=100
    until grep -qsFxz "DISAGG_RANK=$2" "/proc/$1/environ" || ! kill -0 "$1" || [ $((tries -= 1)) -lt 0 ]; do sleep 0.1; done
    output=$(readlink "/proc/$1/fd/2")
    (trap '' TERM; exec tail -s 0.2 --pid="$1" -f /dev/null)
    ! kill -0 "$1" || return # this tail cannot wait
    sleep 0.3
    while pids=$(left "$2"); [ -n "$pids" ] && [ "$stopped" -gt 0 ]; do stopped=$((stopped - 1)); sleep 1; done
    names=
    for pid in $pids; do read -r name <"/proc/$pid/comm" && names="$names${names:+, }$pid ($name)"; done
    for pid in $pids; do
        if [ "$(readlink "/proc/$pid/fd/2")" = "$output" ]; then
            echo "slurm-disagg: rank $SLURM_PROCID on $SLURMD_NODENAME has ended; killing what it left: $names" >"/proc/$pid/fd/2"
            break
        fi
    done
    # shellcheck disable=SC2046  # several words
    for _ in 1 2 3; do kill -KILL $(left "$2") || break; sleep 0.2; done
}
# Arguments are the rank's process and its name. What watches must not hold the rank's output itself, nor be its child:
# some programs wait for all of their children.
disagg_watch() {
    ( (exec </dev/null >/dev/null 2>&1; watch "$@") &)
}
