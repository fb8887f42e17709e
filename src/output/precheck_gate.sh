# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154  # the variables are those of the script around this
# The steps that check whether caches travel between the servers, before any server starts: all at
# a time, because they talk to each other. One that fails or takes too long ends the job.

# start_prechecks KIND COUNT FIRST_NODE NODES_EACH TASKS_EACH TASKS_PER_NODE COMMAND
start_prechecks() {
    local kind="$1" count="$2" first="$3" each="$4" tasks="$5" per_node="$6" index hosts
    local command="$7" run=(bash -c "eval \"\${pytestCommand}\"")
    if [[ -f "${precheckRunScript}" ]]; then
        run=(bash "${precheckRunScript}")
    fi
    for (( index = 0; index < count; index++ )); do
        hosts="$(IFS=,; echo "${precheckNodes[*]:first + index * each:each}")"
        precheckNames+=("${kind}_PRECHECK_${index}")
        DISAGG_SERVING_TYPE="${kind}_PRECHECK_${index}" \
            pytestCommand="${command} --server-idx ${index}" \
            timeout -k 60 "${ctPrecheckTimeout}" \
            srun "${srunArgs[@]}" --nodes="${each}" --ntasks="${tasks}" --nodelist="${hosts}" \
            --distribution="plane=${per_node}" --kill-on-bad-exit=1 \
            --job-name="${kind}_PRECHECK_${index}" "${run[@]}" \
            &> "${precheckDir}/logs/${kind,,}_${index}.log" &
        precheckPids+=("$!")
    done
}

run_cache_transceiver_precheck() {
    # Commands may hold secrets, which no trace may show.
    { local -; set +x; } 2> /dev/null
    if [[ "${ctPrecheckEnabled}" != 1 ]] || (( numCtxServers == 0 )); then
        return 0
    fi
    local precheckNodes=() precheckNames=() precheckPids=() failed=() index status name
    local precheckDir="${testOutputDir}/cache_transceiver_precheck"
    mkdir -p "${precheckDir}/logs"
    mapfile -t precheckNodes < <(scontrol show hostnames "${SLURM_JOB_NODELIST}")
    start_prechecks GEN "${numGenServers}" 0 "${nodesPerGenServer}" "${gpusPerGenServer}" \
        "${gpusPerNodePerGenServer}" "${pytestCommandGENPrecheck}"
    start_prechecks CTX "${numCtxServers}" $(( numGenServers * nodesPerGenServer )) \
        "${nodesPerCtxServer}" "${gpusPerCtxServer}" "${gpusPerNodePerCtxServer}" \
        "${pytestCommandCTXPrecheck}"
    for index in "${!precheckPids[@]}"; do
        status=0
        wait "${precheckPids[index]}" || status=$?
        if (( status == 124 || status == 137 )); then
            failed+=("${precheckNames[index]} took more than ${ctPrecheckTimeout} seconds")
        elif (( status != 0 )); then
            failed+=("${precheckNames[index]} ended with status ${status}")
        fi
        echo "slurm-disagg: ${precheckNames[index]} ended with status ${status}" >&2
        if (( status != 0 )); then
            name="${precheckNames[index],,}"
            tail -n 20 "${precheckDir}/logs/${name/_precheck/}.log" >&2
        fi
    done
    if (( ${#failed[@]} == 0 )); then
        return 0
    fi
    precheck_failed "$(IFS=';'; echo "${failed[*]}")"
    exit 1
}
