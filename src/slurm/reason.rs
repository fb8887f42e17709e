// SPDX-License-Identifier: Apache-2.0
//! Why a job waits or ended, as Slurm's one-word reason states it, and what a person can do about
//! it.

/// Each reason with its advice.
#[rustfmt::skip]
const REASONS: [(&str, &str); 54] = [
    ("None", "The scheduler looks at it within seconds."),
    ("Priority", "Jobs of higher priority are ahead; `squeue --start` estimates when this one starts."),
    ("Resources", "It is next; it waits for enough nodes to become free."),
    ("Dependency", "It waits for the jobs that it depends on."),
    ("DependencyNeverSatisfied", "A job it depends on failed, so it never starts; cancel it and submit again without that dependency."),
    ("BeginTime", "It starts later (--begin, or the delay after a requeue)."),
    ("Licenses", "It waits for a license to become free."),
    ("JobHeldUser", "It is held; `scontrol release JOBID` lets it start."),
    ("JobHeldAdmin", "An administrator holds it; ask the site."),
    ("JobHoldMaxRequeue", "It was requeued too often and is held; check its log, then `scontrol release JOBID`."),
    ("JobArrayTaskLimit", "It waits for another task of its array to end (the % limit of --array)."),
    ("PartitionDown", "The partition is down; ask the site or use another with --partition."),
    ("PartitionInactive", "The partition starts no jobs; ask the site or use another with --partition."),
    ("PartitionNodeLimit", "It asks for more (or fewer) nodes than the partition has or allows; change the layout or the partition."),
    ("PartitionTimeLimit", "Its time limit is longer than the partition's; ask for less with --time."),
    ("PartitionConfig", "The partition does not support the request; change the request or the partition."),
    ("ReqNodeNotAvail", "A node that it needs is down, drained or reserved; `sinfo -R` says why."),
    ("NodeDown", "A node that it needs is down; `sinfo -R` says why."),
    ("BadConstraints", "No nodes of the cluster can meet the request; check nodes, GPUs per node and --constraint."),
    ("Constraints", "No nodes of the cluster can meet --constraint; change or drop it."),
    ("Reservation", "It waits for its reservation to start."),
    ("ReservationDeleted", "Its reservation was deleted; submit again without it."),
    ("ReservationInvalid", "Its reservation cannot be used; check its name, users and time."),
    ("Prolog", "The prolog is running on its nodes."),
    ("Cleaning", "Its earlier run is still being cleaned up."),
    ("SchedDefer", "The site starts jobs only in the scheduler's main cycle; it waits for the next one."),
    ("FedJobLock", "The clusters of the federation decide where it starts."),
    ("FrontEndDown", "No front-end node is up; ask the site."),
    ("InvalidAccount", "The account is not known or not yours; check --account (`sacctmgr show assoc user=$USER`)."),
    ("AccountNotAllowed", "The account may not use this partition; change --account or --partition."),
    ("AccountingPolicy", "A limit of your account delays it; see `sshare` and the site's policy."),
    ("InvalidQOS", "The QOS is not known or not yours; check --qos."),
    ("QOSNotAllowed", "The QOS may not be used here; change --qos, --partition or --account."),
    ("QOSUsageThreshold", "The usage of its QOS is over the threshold; it starts when the usage has decayed."),
    ("AssociationJobLimit", "Your account is at its limit of running jobs; it starts when one ends."),
    ("AssociationResourceLimit", "Your account is at its resource limit; it starts when another job ends."),
    ("AssociationTimeLimit", "Your account has no time left, or the time limit is too long; ask for less with --time."),
    ("BurstBufferResources", "It waits for room in the burst buffer."),
    ("BurstBufferStageIn", "Its data is copied into the burst buffer."),
    ("BurstBufferOperation", "The burst buffer failed; ask the site."),
    ("NvidiaImexChannels", "It waits for an IMEX channel to become free."),
    ("MpiPortsBusy", "It waits for free MPI ports on its nodes."),
    ("MaxPoweredUpNodes", "The site's limit of powered-up nodes is reached; it waits for one to power down."),
    ("MaxMemPerLimit", "It asks for more memory per CPU or node than the partition allows; ask for less."),
    ("PowerNotAvail", "It waits for electric power to become available."),
    ("PowerReserved", "It waits for electric power that is reserved."),
    ("DeadLine", "It could not meet its deadline (--deadline)."),
    ("NonZeroExitCode", "The batch script ended with a non-zero exit code; check its log."),
    ("RaisedSignal", "A signal ended the batch script; check its log."),
    ("TimeLimit", "It reached its time limit; ask for more with --time."),
    ("JobLaunchFailure", "It could not start, or a signal ended its batch script; check its log, that the nodes see the workspace, and the prolog."),
    ("OutOfMemory", "It used more memory than it asked for; ask for more with --mem."),
    ("InactiveLimit", "It had no running step for longer than the site allows."),
    ("SystemFailure", "Slurm itself, the file system or the network failed; submit again or ask the site."),
];

/// Advice for the reason that squeue (`%r`) or scontrol (`Reason=`) prints, with or without
/// parentheses and further text; `None` for an unknown reason.
#[must_use]
pub fn advice(reason: &str) -> Option<&'static str> {
    let reason = reason.trim().trim_start_matches('(').trim_end_matches(')');
    if reason.starts_with("Nodes") && reason.contains("DOWN") {
        return Some(
            "Nodes that it needs are down, drained or reserved for others; `sinfo -R` says why.",
        );
    }
    let word = reason.split([',', ' ', ':']).next().unwrap_or(reason);
    let named = REASONS.iter().find(|row| row.0.eq_ignore_ascii_case(word));
    named.map(|row| row.1).or_else(|| limit_advice(word))
}

/// The families of limits, whose names say what, of whom and how: `QOSMaxNodePerJobLimit`,
/// `AssocGrpGRES`, `MaxJobsPerAccount`.
fn limit_advice(word: &str) -> Option<&'static str> {
    let has = |part| word.contains(part);
    let starts = |part| word.starts_with(part);
    if !(starts("QOS") || starts("Assoc") || (starts("Max") && has("Per"))) {
        return None;
    }
    if has("Min") && !has("Minutes") && !has("RunMins") {
        Some("It asks for less than its QOS accepts; ask for more or change --qos.")
    } else if has("PerJob") || has("PerNode") || has("WallDuration") {
        Some("It exceeds a limit for one job; make it smaller or change --qos or --account.")
    } else if has("Minutes") && !has("RunMinutes") {
        Some("Its group has no time left; change --account or --qos, or ask the site.")
    } else if has("Grp") || has("Per") || has("Jobs") || has("Limit") {
        Some("You or your group are at a limit; it starts when other jobs end.")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::installed::InstalledLibrary;

    #[test]
    fn a_reason_is_found_in_the_text_around_it() {
        for (reason, expected) in [
            ("(Resources)", "It is next;"),
            ("ReqNodeNotAvail,_UnavailableNodes:node[1-2]", "A node that it needs"),
            ("(ReqNodeNotAvail, May be reserved for other job)", "A node that it needs"),
            ("Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved", "Nodes that it needs"),
        ] {
            assert!(advice(reason).unwrap().starts_with(expected), "{reason}");
        }
        assert_eq!(advice("node[1-2]"), None);
        assert_eq!(advice(""), None);
    }

    #[test]
    fn a_limit_of_one_job_is_changed_and_a_limit_of_many_jobs_passes() {
        for (reason, expected) in [
            ("QOSMaxNodePerJobLimit", "It exceeds a limit for one job"),
            ("AssocMaxWallDurationPerJobLimit", "It exceeds a limit for one job"),
            ("QOSMinGRES", "It asks for less"),
            ("QOSMinCpuNotSatisfied", "It asks for less"),
            ("AssocGrpGRESMinutes", "Its group has no time left"),
            ("QOSGrpMemoryMinutes", "Its group has no time left"),
            ("AssocGrpGRESRunMinutes", "You or your group"),
            ("QOSGrpNodeLimit", "You or your group"),
            ("QOSMaxJobsPerUserLimit", "You or your group"),
            ("AssocMaxJobsLimit", "You or your group"),
            ("MaxJobsPerAccount", "You or your group"),
            ("MaxGRESRunMinsPerUser", "You or your group"),
        ] {
            assert!(advice(reason).unwrap().starts_with(expected), "{reason}");
        }
    }

    #[test]
    fn the_installed_library_knows_every_reason() {
        let of_some_releases = [
            "FrontEndDown",
            "PowerNotAvail",
            "PowerReserved",
            "NvidiaImexChannels",
            "MpiPortsBusy",
            "Constraints",
            "ReservationInvalid",
            "RaisedSignal",
            "MaxPoweredUpNodes",
            "SchedDefer",
        ];
        let Some(library) = InstalledLibrary::read() else { return };
        for (name, ..) in REASONS.iter().filter(|row| !of_some_releases.contains(&row.0)) {
            assert!(library.has(name), "{name} is not in the installed libslurmfull.so");
        }
    }

    #[test]
    fn every_limit_of_the_installed_library_has_advice() {
        let Some(library) = InstalledLibrary::read() else { return };
        let families = ["QOSGrp", "QOSMax", "QOSMin", "AssocGrp", "AssocMax"];
        let limits: Vec<&str> = library
            .words()
            .filter(|word| word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            .filter(|word| families.iter().any(|start| word.starts_with(start)))
            .collect();
        assert!(limits.len() > 80, "{limits:?}");
        for word in limits {
            assert!(advice(word).is_some(), "{word}");
        }
    }
}
