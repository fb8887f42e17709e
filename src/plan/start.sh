# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
unset DISAGG_START
# A srun in the task would place its own tasks by the file, or look for one.
[ "${SLURM_DISTRIBUTION-}" != arbitrary ] || unset SLURM_DISTRIBUTION SLURM_HOSTFILE
own() (
    first=$1; count=$2; list=; IFS=,; set -f
    # shellcheck disable=SC2086  # it is a list
    set -- $3
    [ "$*" != NoDevFiles ] || set --
    if [ "$count" -gt 0 ] && [ $# -eq 0 ]; then
        while [ $# -lt "$count" ]; do set -- "$@" $((first + $#)); done
    elif [ "$count" -gt 0 ] && [ $# -ne "$count" ]; then
        if [ $# -lt $((first + count)) ]; then
            echo "slurm-disagg: its tasks have the GPUs $*, but it needs number $first to $((first + count - 1)) of the job's GPUs on its node" >&2
            exit 1
        fi
        shift "$first"
        for gpu; do [ "$count" -eq 0 ] || { list=$list${list:+,}$gpu; count=$((count - 1)); }; done
        set -- "$list"
    fi
    echo "$*"
)
on_node() { own "$1" "$2" "${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS:-${CUDA_VISIBLE_DEVICES:-}}}"; }
place() (
    ranks=$1; first=$2; count=$3; node=0; local=$SLURM_PROCID
    while [ "$local" -ge "${ranks%%,*}" ]; do
        local=$((local - ${ranks%%,*})); node=$((node + 1)); ranks=${ranks#*,}
    done
    if [ "$node" -ne "$SLURM_NODEID" ]; then
        echo "slurm-disagg: rank $SLURM_PROCID is on $SLURMD_NODENAME, node $SLURM_NODEID of its step; by the plan each node has $1 ranks" >&2
        exit 1
    fi
    [ "$node" -eq 0 ] || first=0
    case "$count" in
    ranks) count=${ranks%%,*} ;;
    each) first=$((first + local)); count=1 ;;
    esac
    echo "$first $count"
)
# The launch has asked at the ports from its own node. Only here one sees who listens on loopback or IPv6 alone.
check_ports() (
    [ "${SLURM_LOCALID:-0}" -eq 0 ] || exit 0
    for port in ${DISAGG_PORTS-}; do
        number=${port#*=}
        addresses=$(printf ' (0{8}|0{32}|(0{16}F{4}0{4})?[0-9A-F]{6}7F|0{24}01000000):%04X ' "$number")
        grep -Eqs "${addresses}[0-9A-F]*:[0-9A-F]* 0A " /proc/net/tcp /proc/net/tcp6 || continue
        user=$(PATH=$PATH:/usr/sbin:/sbin ss -Hltnp "sport = :$number" 2>/dev/null | sed -n '/users:((/{s/.*users:(("\([^"]*\)",pid=\([0-9]*\),.*/ by \1 (pid \2)/p;q;}')
        echo "slurm-disagg: cannot start: its port $number (${port%%=*}) is in use on $SLURMD_NODENAME$user" >&2
        exit 1
    done
)
disagg_place=$(place "$1" "$2" "$3") || exit 1
shift 3
check_ports || exit 1
unset DISAGG_PORTS
set -- "${disagg_place% *}" "${disagg_place#* }" "$@"
unset disagg_place
case "$2:${NVIDIA_VISIBLE_DEVICES:-all}" in
0:all | [1-9]*) NVIDIA_VISIBLE_DEVICES=$(on_node "$1" "$2") || exit 1 ;;
esac
export NVIDIA_VISIBLE_DEVICES="${NVIDIA_VISIBLE_DEVICES:-all}"
if [ "$2" -gt 0 ]; then
    CUDA_VISIBLE_DEVICES=$(own "$1" "$2" "${CUDA_VISIBLE_DEVICES:-}") || exit 1
    export CUDA_VISIBLE_DEVICES
fi
echo "slurm-disagg: rank=$SLURM_PROCID node=$SLURMD_NODENAME gpus=$(on_node "$1" "$2") CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-}"
disagg_rank=$SLURM_JOB_ID.$SLURM_STEP_ID.$SLURM_PROCID.$$
disagg_watch $$ "$disagg_rank"
export DISAGG_RANK="$disagg_rank"
shift 2
exec "$@"
