#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Shows the stand-in on a real Slurm with nothing of ours but itself: allocates 3 nodes, starts the four roles of
# standin_3nodes with plain srun (CTX_0 on the first node, GEN_0 on the two others, MPI type pmix), waits for BENCHMARK, ends the
# servers with SIGTERM, and exits 0 when every step did.
#   on_slurm.sh WORKSPACE          WORKSPACE: a directory that all nodes see; SLURM_CONF says which cluster
set -Eeuo pipefail
here=$(dirname "$(readlink -f "$0")")

if [ "${2-}" != in_allocation ]; then
	[ $# = 1 ] || { sed -n '/^#   on_slurm/s/^# *//p' "$0" >&2; exit 2; }
	mkdir -p "$1"
	exec salloc -Q -N3 -n12 --ntasks-per-node=4 --gpus-per-node=4 --time=5 "$0" "$(readlink -f "$1")" in_allocation
fi

workspace=$1
source_dir=$here/tree
defs=$source_dir/tests/integration/defs
launcher=$source_dir/tensorrt_llm/llmapi/trtllm-llmapi-launch
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export PATH=$here/bin:$PATH LLM_ROOT=$source_dir COLUMNS=300
unset SLURM_NNODES SLURM_JOB_NUM_NODES SLURM_NTASKS SLURM_NPROCS SLURM_NTASKS_PER_NODE

step() { # ROLE LOG SRUN_ARGUMENT... [-- LAUNCHER]: becomes the step
	local role=$1 log=$2 srun_args=()
	shift 2
	while [ $# -gt 0 ] && [ "$1" != -- ]; do srun_args+=("$1"); shift; done
	[ $# -gt 0 ] && shift
	export DISAGG_SERVING_TYPE=$role
	cd "$defs"
	exec srun --job-name="$role" --overlap --kill-on-bad-exit=1 --gpus-per-node=4 "${srun_args[@]}" "$@" \
		pytest -vv --timeout-method=thread --timeout=3600 --rootdir "$defs" --test-prefix=disagg_upload \
		--output-dir="$workspace/" --csv="$workspace/report.csv" -o junit_logging=out-err \
		--junit-xml="$workspace/results-$role.xml" \
		'perf/test_perf_sanity.py::test_e2e[disagg_upload-standin_3nodes]' >"$workspace/$log" 2>&1
}

# A PMIx step that does not start on the job's first node is the harder case: GEN_0, which spans two, is it.
step GEN_0 gen_server_0.log -N2 -n8 --ntasks-per-node=4 -w "${nodes[1]},${nodes[2]}" --mpi=pmix -- "$launcher" & servers=("$!")
step CTX_0 ctx_server_0.log -N1 -n4 --ntasks-per-node=4 -w "${nodes[0]}" --mpi=pmix -- "$launcher" & servers+=("$!")
step DISAGG_SERVER disagg_server.log -N1 -n1 -w "${nodes[0]}" & servers+=("$!")
step BENCHMARK benchmark.log -N1 -n1 -w "${nodes[0]}" & benchmark=$!

failed=0
wait "$benchmark" || failed=$?
echo "BENCHMARK: $failed"
# srun itself takes SIGTERM as an order to kill its step at once: the signal has to go to the step. scancel delivers it,
# and still exits 225 (seen on 22.05) when the step has not all of the job's nodes, so only the servers' own status counts.
squeue -h -s -j "$SLURM_JOB_ID" -o '%i %j' | while read -r step_id name; do
	case $name in GEN_0 | CTX_0 | DISAGG_SERVER) scancel --quiet --signal=TERM "$step_id" || true;; esac
done
for server in "${servers[@]}"; do
	status=0
	wait "$server" || status=$?
	echo "server: $status"
	[ "$status" = 0 ] || failed=1
done
grep -h ': ready at' "$workspace"/*.log
exit "$failed"
