// SPDX-License-Identifier: Apache-2.0
//! Why a job waits or ended, as Slurm's one-word reason says it, and what a person can do about it.

/// Who has to act before the job can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outlook {
    /// Nobody: it starts by itself.
    Wait,
    /// The user: it does not start as it was asked for.
    User,
    /// An administrator of the site.
    Site,
    /// Nobody can: the run is over, and this is why.
    Over,
}

/// What a reason means for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Who has to act.
    pub outlook: Outlook,
    /// What it means and what to do, in one line.
    pub text: &'static str,
}

/// Reasons with a line of their own.
const REASONS: [(&str, Outlook, &str); 54] = {
    use Outlook::{Over, Site, User, Wait};
    [
        ("None", Wait, "The scheduler has not looked at the job yet; it will within seconds."),
        (
            "Priority",
            Wait,
            "Jobs of higher priority are ahead; `squeue --start` estimates when this one starts.",
        ),
        ("Resources", Wait, "It is next; it waits for enough nodes to become free."),
        ("Dependency", Wait, "It waits for the jobs that it depends on."),
        (
            "DependencyNeverSatisfied",
            User,
            "A job it depends on ended in the wrong way, so it will never start; cancel it and submit again without that dependency.",
        ),
        (
            "BeginTime",
            Wait,
            "Its start time (--begin, or the pause after a requeue) has not come yet.",
        ),
        ("Licenses", Wait, "It waits for a licence to become free."),
        ("JobHeldUser", User, "It is held; `scontrol release JOBID` lets it start."),
        ("JobHeldAdmin", Site, "An administrator holds it; ask the site."),
        (
            "JobHoldMaxRequeue",
            User,
            "It was requeued too often and is held; look at its log, then `scontrol release JOBID`.",
        ),
        (
            "JobArrayTaskLimit",
            Wait,
            "It waits for another task of its array to end (the % limit of --array).",
        ),
        (
            "PartitionDown",
            Site,
            "The partition is down; ask the site or use another with --partition.",
        ),
        (
            "PartitionInactive",
            Site,
            "The partition takes no new starts; ask the site or use another with --partition.",
        ),
        (
            "PartitionNodeLimit",
            User,
            "It asks for more (or fewer) nodes than the partition has or allows; change the layout or the partition.",
        ),
        (
            "PartitionTimeLimit",
            User,
            "Its time limit is longer than the partition's; ask for less with --time.",
        ),
        (
            "PartitionConfig",
            User,
            "It asks for something that the partition is not configured for; change the request or the partition.",
        ),
        (
            "ReqNodeNotAvail",
            Site,
            "A node that it needs is down, drained or reserved; `sinfo -R` says why.",
        ),
        ("NodeDown", Site, "A node that it needs is down; `sinfo -R` says why."),
        (
            "BadConstraints",
            User,
            "No nodes of the cluster can meet the request; check nodes, GPUs per node and --constraint.",
        ),
        ("Constraints", User, "No nodes of the cluster can meet --constraint; change or drop it."),
        ("Reservation", Wait, "It waits for its reservation to start."),
        ("ReservationDeleted", User, "Its reservation was deleted; submit again without it."),
        (
            "ReservationInvalid",
            User,
            "Its reservation cannot be used; check its name, users and time.",
        ),
        ("Prolog", Wait, "The prolog is running on its nodes."),
        ("Cleaning", Wait, "Its earlier run is still being cleaned up."),
        (
            "SchedDefer",
            Wait,
            "The site starts jobs only in the scheduler's own rounds; it will get its turn.",
        ),
        ("FedJobLock", Wait, "The clusters of the federation are agreeing on where it starts."),
        ("FrontEndDown", Site, "No front-end node is up; ask the site."),
        (
            "InvalidAccount",
            User,
            "The account is not known or not yours; check --account (`sacctmgr show assoc user=$USER`).",
        ),
        (
            "AccountNotAllowed",
            User,
            "The account may not use this partition; change --account or --partition.",
        ),
        (
            "AccountingPolicy",
            User,
            "A limit of your account keeps it back; `sshare` and the site's policy say which.",
        ),
        ("InvalidQOS", User, "The QOS is not known or not yours; check --qos."),
        (
            "QOSNotAllowed",
            User,
            "The QOS may not be used here; change --qos, --partition or --account.",
        ),
        (
            "QOSUsageThreshold",
            Wait,
            "The usage of its QOS is over the threshold; it starts when that has decayed.",
        ),
        (
            "AssociationJobLimit",
            Wait,
            "Your account runs as many jobs as it may; it starts when one ends.",
        ),
        (
            "AssociationResourceLimit",
            Wait,
            "Your account uses as much as it may; it starts when something is given back.",
        ),
        (
            "AssociationTimeLimit",
            User,
            "Your account has used up its time, or the time limit is longer than it may be.",
        ),
        ("BurstBufferResources", Wait, "It waits for room in the burst buffer."),
        ("BurstBufferStageIn", Wait, "Its data are being copied into the burst buffer."),
        ("BurstBufferOperation", Site, "The burst buffer failed; ask the site."),
        ("NvidiaImexChannels", Wait, "It waits for an IMEX channel to become free."),
        ("MpiPortsBusy", Wait, "It waits for MPI ports to become free on its nodes."),
        (
            "MaxPoweredUpNodes",
            Wait,
            "As many nodes as the site allows are powered up; it waits for one to be powered down.",
        ),
        (
            "MaxMemPerLimit",
            User,
            "It asks for more memory per CPU or node than the partition allows; ask for less.",
        ),
        ("PowerNotAvail", Wait, "It waits for electric power to become available."),
        ("PowerReserved", Wait, "It waits for electric power that is reserved at the moment."),
        ("DeadLine", Over, "It could no longer meet its deadline (--deadline)."),
        (
            "NonZeroExitCode",
            Over,
            "The batch script ended with a non-zero exit code; look at its log.",
        ),
        ("RaisedSignal", Over, "The batch script was ended by a signal; look at its log."),
        ("TimeLimit", Over, "It reached its time limit; ask for more with --time."),
        (
            "JobLaunchFailure",
            Over,
            "It could not be launched, or a signal ended its batch script; look at its log, then at the prolog, the script's path and the user's id on the nodes.",
        ),
        ("OutOfMemory", Over, "It used more memory than it asked for; ask for more with --mem."),
        ("InactiveLimit", Over, "It had no running step for longer than the site allows."),
        (
            "SystemFailure",
            Over,
            "Slurm itself, the file system or the network failed; submit again or ask the site.",
        ),
    ]
};

/// What a reason means, for the word that squeue (`%r`) or scontrol (`Reason=`) prints, with or
/// without parentheses and further text; nothing for a reason that is not known.
#[must_use]
pub fn advice(reason: &str) -> Option<Advice> {
    let reason = reason.trim().trim_start_matches('(').trim_end_matches(')');
    if reason.starts_with("Nodes") && reason.contains("DOWN") {
        return Some(Advice {
            outlook: Outlook::Site,
            text: "Nodes that it needs are down, drained or reserved for others; `sinfo -R` says why.",
        });
    }
    let word = reason.split([',', ' ', ':']).next().unwrap_or(reason);
    let named = REASONS.iter().find(|row| row.0.eq_ignore_ascii_case(word));
    named.map(|row| Advice { outlook: row.1, text: row.2 }).or_else(|| limit_advice(word))
}

/// The families of limits, whose names say what, of whom and how: `QOSMaxNodePerJobLimit`,
/// `AssocGrpGRES`, `MaxJobsPerAccount`.
fn limit_advice(word: &str) -> Option<Advice> {
    let is_account_limit = word.starts_with("Max") && word.contains("Per");
    if !(word.starts_with("QOS") || word.starts_with("Assoc") || is_account_limit) {
        return None;
    }
    let (outlook, text) = if word.contains("Min")
        && !word.contains("Minutes")
        && !word.contains("RunMins")
    {
        (Outlook::User, "It asks for less than its QOS takes; ask for more or change --qos.")
    } else if word.contains("PerJob") || word.contains("PerNode") || word.contains("WallDuration") {
        (
            Outlook::User,
            "It alone asks for more than one job may; make it smaller or change --qos or --account.",
        )
    } else if word.contains("Minutes") && !word.contains("RunMinutes") {
        (
            Outlook::User,
            "The time that its group may use is used up; change --account or --qos, or ask the site.",
        )
    } else if word.contains("Grp")
        || word.contains("Per")
        || word.contains("Jobs")
        || word.contains("Limit")
    {
        (Outlook::Wait, "You or your group use as much as you may; it starts when other jobs end.")
    } else {
        return None;
    };
    Some(Advice { outlook, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::installed::InstalledLibrary;

    fn outlook(reason: &str) -> Option<Outlook> {
        advice(reason).map(|advice| advice.outlook)
    }

    #[test]
    fn a_reason_is_found_in_the_text_around_it() {
        assert_eq!(outlook("(Resources)"), Some(Outlook::Wait));
        assert_eq!(outlook("ReqNodeNotAvail,_UnavailableNodes:node[1-2]"), Some(Outlook::Site));
        assert_eq!(
            outlook("(ReqNodeNotAvail, May be reserved for other job)"),
            Some(Outlook::Site)
        );
        assert_eq!(
            outlook(
                "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions"
            ),
            Some(Outlook::Site)
        );
        assert_eq!(outlook("node[1-2]"), None);
        assert_eq!(outlook(""), None);
    }

    #[test]
    fn limits_of_one_job_are_the_users_and_limits_of_many_pass() {
        for (reason, expected) in [
            ("QOSMaxNodePerJobLimit", Outlook::User),
            ("AssocMaxWallDurationPerJobLimit", Outlook::User),
            ("QOSMinGRES", Outlook::User),
            ("QOSMinCpuNotSatisfied", Outlook::User),
            ("AssocGrpGRESMinutes", Outlook::User),
            ("AssocGrpGRESRunMinutes", Outlook::Wait),
            ("QOSGrpNodeLimit", Outlook::Wait),
            ("QOSMaxJobsPerUserLimit", Outlook::Wait),
            ("AssocMaxJobsLimit", Outlook::Wait),
            ("MaxJobsPerAccount", Outlook::Wait),
            ("MaxGRESRunMinsPerUser", Outlook::Wait),
            ("QOSGrpMemoryMinutes", Outlook::User),
        ] {
            assert_eq!(outlook(reason), Some(expected), "{reason}");
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
