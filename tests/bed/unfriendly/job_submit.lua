-- SPDX-License-Identifier: Apache-2.0
-- A site's rules. They come last in JobSubmitPlugins, as docs/admin.md says.

local function refuse(why)
    slurm.log_user("site rule: %s", why)
    return slurm.ERROR
end

function slurm_job_submit(job, _, _)
    if not (job.tres_per_node or job.tres_per_job or job.tres_per_task) then
        return refuse("this cluster is for jobs with GPUs: ask for them")
    end
    if job.time_limit == slurm.NO_VAL then
        return refuse("each job has a time limit: add --time")
    end
    job.account = job.account or "everybody"
    slurm.log_user("100 GPU hours are left, see project 4711")
    return slurm.SUCCESS
end

function slurm_job_modify()
    return slurm.SUCCESS
end

return slurm.SUCCESS
