# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Processes that a rank leaves behind at its end would hold back the report of that end, and may outlive the job: they
# are killed. After a SIGTERM, which Slurm sends to all processes of a step, they have time to end by themselves. Those that
# give themselves a title write it over their environment: they are known by the rank's output, which they hold.
left() {
    {
        # A job that the rank has submitted has the name too.
        # shellcheck disable=SC2013  # no name has blanks
        for file in $(grep -lsFxz "DISAGG_RANK=$1" /proc/[0-9]*/environ); do
            ! grep -qsz '^SLURM_JOB_ID=' "$file" || grep -qsFxz "SLURM_JOB_ID=${1%%.*}" "$file" || continue
            echo "$file"
        done
        # slurmstepd gives each task pipes of its own.
        # shellcheck disable=SC2010  # nobody chooses these names
        [ "$parent" != slurmstepd ] || ls -l /proc/[0-9]*/fd/[12] 2>/dev/null | grep -F ' -> pipe:' | grep -F -e " -> $stdout" -e " -> $stderr"
    } | sed -n 's|.*/proc/\([0-9]*\)/.*|\1|p' | sort -u | while read -r pid; do
        # The errors of the first rank of a node are those of slurmstepd too, which root may kill, and of its TaskEpilog.
        grep -qsx slurmstepd "/proc/$pid/comm" || grep -qsFxz SLURM_SCRIPT_CONTEXT=epilog_task "/proc/$pid/environ" || echo "$pid"
    done
}
watch() {
    stopped=0
    trap 'stopped=20' TERM
    trap '' HUP INT QUIT USR1 USR2
    # Where /proc is hidden, a task is seen only once it has been executed.
    until command exec 3<"/proc/$1" || ! kill -0 "$1"; do sleep 0.2; done
    while [ -e /proc/self/fd/3/stat ]; do
        # The number may become another process's before tail looks again.
        (trap '' TERM; exec timeout -s KILL 10 tail -s 0.2 --pid="$1" -f /dev/null)
        # A SIGTERM to all processes of the step ends tail, but not the rank.
        [ $? -gt 128 ] || break
    done
    [ ! -e /proc/self/fd/3/stat ] || return # this tail cannot wait
    exec 3<&-
    sleep 0.3
    while pids=$(left "$2"); [ -n "$pids" ] && [ "$stopped" -gt 0 ]; do stopped=$((stopped - 1)); sleep 1; done
    names=
    for pid in $pids; do read -r name <"/proc/$pid/comm" && names="$names${names:+, }$pid ($name)"; done
    for pid in $pids; do
        if [ "$(readlink "/proc/$pid/fd/2")" = "$stderr" ]; then
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
    (
        stdout=$(readlink "/proc/$$/fd/1" || echo none)
        stderr=$(readlink "/proc/$$/fd/2" || echo none)
        while read -r key value; do [ "$key" != PPid: ] || read -r parent <"/proc/$value/comm"; done <"/proc/$1/status"
        (exec </dev/null >/dev/null 2>&1; watch "$@") &
    )
}
