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
disagg_place=$(place "$1" "$2" "$3") || exit 1
shift 3
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
