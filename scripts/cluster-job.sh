#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A disaggregated test as a batch job: the servers, then the benchmark, then the servers' end.
# The job's size and each step's come from the configuration.
#SBATCH --disagg-config=standin_3nodes.yaml
#SBATCH --time=10 --output=job-%j.log

role() {
	# shellcheck disable=SC2016 # each task expands its own
	srun --disagg-role="$1" bash -c 'cd "$LLM_ROOT/tests/integration/defs" && eval "$pytestCommand"' >"$1.log" 2>&1
}

srun --disagg-role=help
for server in GEN_0 CTX_0 DISAGG_SERVER; do role $server & done
role BENCHMARK
status=$?
tail -n 1 BENCHMARK.log
# To the steps, not to their sruns, which would kill them: this lets servers end in good order.
# scancel may call the step's id invalid, and has sent the signal all the same.
squeue -h -s -j "$SLURM_JOB_ID" -o %i | grep -v batch | xargs -r -n 1 scancel --quiet --signal=TERM 2>/dev/null
wait
exit $status
