// SPDX-License-Identifier: Apache-2.0
//! What of Slurm's own variables may pass from one program to the next.
//!
//! A shell that is itself a job, a site's profile or a desktop session leaves sizes, bindings,
//! memory, exports and arrays in the environment, and sbatch and srun take them as options. So a
//! variable of Slurm's passes only when it is listed here.
//!
//! Source: `man sbatch` and `man srun`, INPUT ENVIRONMENT VARIABLES, of 20.11 to 26.05.

/// How the names of Slurm's variables, and of its MPI plugins' and pyxis's, begin.
const OF_SLURM: [&str; 9] =
    ["SLURM", "SBATCH_", "SALLOC_", "SRUN_", "_SLURM", "PMI_", "PMIX_", "PYXIS_", "ENROOT_SLURM"];

/// The GPUs that Slurm gave an outer job.
const GPUS: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"];

/// How a program reaches its cluster.
const CLUSTER: [&str; 4] = ["SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS", "SLURM_CONF_SERVER"];

/// What people choose for all of their jobs, and that contradicts no plan.
const CHOICES: [&str; 12] = [
    "SBATCH_ACCOUNT",
    "SBATCH_CLUSTERS",
    "SBATCH_CONSTRAINT",
    "SBATCH_DEBUG",
    "SBATCH_EXCLUSIVE",
    "SBATCH_NO_REQUEUE",
    "SBATCH_PARTITION",
    "SBATCH_QOS",
    "SBATCH_REQUEUE",
    "SBATCH_RESERVATION",
    "SBATCH_SIGNAL",
    "SBATCH_WCKEY",
];

/// What a job's script knows of its job; a `*` at the end matches any text.
pub const OF_THE_JOB: [&str; 30] = [
    "SLURM_ARRAY_*",
    "SLURM_CLUSTER_NAME",
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_DISAGG_*",
    "SLURM_GPUS_ON_NODE",
    "SLURM_HET_*",
    "SLURM_JOBID",
    "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_CPUS_PER_NODE",
    "SLURM_JOB_END_TIME",
    "SLURM_JOB_GID",
    "SLURM_JOB_GPUS",
    "SLURM_JOB_GROUP",
    "SLURM_JOB_ID",
    "SLURM_JOB_LICENSES",
    "SLURM_JOB_NAME",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NODELIST_HET_GROUP_*",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_QOS",
    "SLURM_JOB_RESERVATION",
    "SLURM_JOB_START_TIME",
    "SLURM_JOB_UID",
    "SLURM_JOB_USER",
    "SLURM_JWT",
    "SLURM_RESTART_COUNT",
    "SLURM_SPANK_*",
    "SLURM_SUBMIT_*",
    "SLURM_WORKING_CLUSTER",
];

/// How Slurm's variables begin that do not reach the steps of a job unless they are listed in
/// [`OF_THE_JOB`].
pub const PREFIXES_OF_STEPS: [&str; 6] = ["SLURM", "SBATCH_", "SALLOC_", "SRUN_", "PMI_", "PMIX_"];

/// Whether a variable may reach sbatch, and so the new job. `in_a_job`: the shell is itself a job.
#[must_use]
pub fn reaches_sbatch(name: &str, in_a_job: bool) -> bool {
    match OF_SLURM.iter().any(|start| name.starts_with(start)) {
        true => CLUSTER.contains(&name) || CHOICES.contains(&name),
        false => !(in_a_job && GPUS.contains(&name)),
    }
}

/// Whether a variable of a job's environment may reach the srun of a step.
#[must_use]
pub fn reaches_srun(name: &str) -> bool {
    let matches = |allowed: &str| match allowed.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == allowed,
    };
    !PREFIXES_OF_STEPS.iter().any(|start| name.starts_with(start))
        || OF_THE_JOB.iter().any(|allowed| matches(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_outer_job_s_variables_do_not_reach_the_new_job() {
        for name in [
            "SLURM_CPU_BIND",
            "SLURM_JOB_ID",
            "SLURM_MEM_PER_CPU",
            "SLURM_GPUS",
            "SLURM_DISAGG_PLAN",
            "SBATCH_EXPORT",
            "SBATCH_ARRAY_INX",
            "SBATCH_GRES",
            "PMIX_RANK",
            "PYXIS_CONTAINER",
            "CUDA_VISIBLE_DEVICES",
        ] {
            assert!(!reaches_sbatch(name, true), "{name}");
        }
        for name in ["SLURM_CONF", "SBATCH_ACCOUNT", "PATH", "HF_TOKEN"] {
            assert!(reaches_sbatch(name, true), "{name}");
        }
        assert!(reaches_sbatch("CUDA_VISIBLE_DEVICES", false));
    }

    /// The names of Slurm's that a program of this machine knows.
    fn known_to(program: &str) -> Vec<String> {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        let path = String::from_utf8(found.unwrap().stdout).unwrap();
        let Ok(bytes) = std::fs::read(path.trim()) else { return Vec::new() };
        let is_name =
            |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
        bytes
            .split(|byte| !is_name(byte))
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .filter(|name| name.starts_with("SLURM_") || name.starts_with("SBATCH_"))
            .collect()
    }

    #[test]
    fn of_all_names_that_srun_knows_those_pass_that_size_and_bind_nothing() {
        for name in known_to("srun").into_iter().filter(|name| reaches_srun(name)) {
            let says = [
                "NTASKS",
                "NPROCS",
                "NNODES",
                "NUM_NODES",
                "BIND",
                "MEM",
                "EXPORT",
                "GRES",
                "DISTRIBUTION",
                "HOSTFILE",
                "OVERLAP",
                "EXACT",
                "WAIT",
                "CPUS_PER_TASK",
                "THREADS",
                "MPI",
                "STDOUT",
                "STDIN",
                "LABEL",
                "TIMELIMIT",
                "REMOTE_CWD",
                "WORKING_DIR",
            ];
            assert!(!says.iter().any(|word| name.contains(word)), "{name}");
        }
    }

    #[test]
    fn of_all_names_that_sbatch_knows_those_pass_that_are_listed() {
        let passing: Vec<_> =
            known_to("sbatch").into_iter().filter(|name| reaches_sbatch(name, true)).collect();
        for name in passing {
            assert!(CHOICES.contains(&&*name) || CLUSTER.contains(&&*name), "{name}");
        }
    }
}
