// SPDX-License-Identifier: Apache-2.0
//! What differs between Slurm releases as far as a SPANK plugin can tell. Every such difference
//! is a method here, so that the rest of the simulator asks instead of comparing numbers.

use serde::{Deserialize, Serialize};

/// A Slurm release series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // each is its own name: V22_05 is Slurm 22.05
pub enum Release {
    V20_11,
    V21_08,
    V22_05,
    V23_02,
    V23_11,
    V24_05,
    V24_11,
    V25_05,
    V25_11,
    V26_05,
    V26_11,
}

impl Release {
    /// Every release that the simulator plays, oldest first.
    pub const ALL: [Release; 11] = [
        Release::V20_11,
        Release::V21_08,
        Release::V22_05,
        Release::V23_02,
        Release::V23_11,
        Release::V24_05,
        Release::V24_11,
        Release::V25_05,
        Release::V25_11,
        Release::V26_05,
        Release::V26_11,
    ];

    /// The release as major, minor and the micro number of a release of its series.
    pub fn numbers(self) -> (u32, u32, u32) {
        match self {
            Release::V20_11 => (20, 11, 9),
            Release::V21_08 => (21, 8, 8),
            Release::V22_05 => (22, 5, 8),
            Release::V23_02 => (23, 2, 8),
            Release::V23_11 => (23, 11, 11),
            Release::V24_05 => (24, 5, 8),
            Release::V24_11 => (24, 11, 7),
            Release::V25_05 => (25, 5, 5),
            Release::V25_11 => (25, 11, 7),
            Release::V26_05 => (26, 5, 3),
            Release::V26_11 => (26, 11, 0),
        }
    }

    /// The release written as Slurm writes it, for example `22.05.8`.
    pub fn version(self) -> String {
        let (major, minor, micro) = self.numbers();
        format!("{major}.{minor:02}.{micro}")
    }

    /// `SLURM_VERSION_NUMBER`: major, minor and micro, one byte each.
    pub fn version_number(self) -> u32 {
        let (major, minor, micro) = self.numbers();
        (major << 16) + (minor << 8) + micro
    }

    /// The release with this `SLURM_VERSION_NUMBER`, whatever its micro number.
    pub fn of_version_number(number: u32) -> Option<Release> {
        Release::ALL.into_iter().find(|release| release.version_number() >> 8 == number >> 8)
    }

    /// `API_CURRENT`, one per release since 20.11 = 36.
    pub fn api_number(self) -> u32 {
        36 + self as u32
    }

    /// What `slurm_api_version()` returns: the API number in the high half.
    pub fn api_version(self) -> i64 {
        i64::from(self.api_number()) << 16
    }

    /// The part of `plugin_version` that must match, for a plugin of this `plugin_type`, when the
    /// file is looked for in PluginDir (`looking`) and when it is loaded. Of SPANK plugins 20.11
    /// checks nothing, and 21.08 nothing when it loads them.
    pub fn version_mask(self, plugin_type: &str, looking: bool) -> u32 {
        match (plugin_type, self) {
            ("spank", Release::V20_11) => 0,
            ("spank", Release::V21_08) if !looking => 0,
            ("spank", _) => 0xff_ff00,
            _ => 0xff_ffff,
        }
    }

    /// Whether a plugin without `plugin_version` is refused.
    pub fn requires_plugin_version(self) -> bool {
        self >= Release::V22_05
    }

    /// Whether a hook's result counts as a failure. 20.11 takes negative ones only.
    pub fn hook_failed(self, result: i32) -> bool {
        if self == Release::V20_11 { result < 0 } else { result != 0 }
    }

    /// Whether the program that called the stack of plugins takes its result as a failure. Up to
    /// 24.11 a positive one stops the stack but not the program.
    pub fn program_fails(self, result: i32) -> bool {
        if self >= Release::V25_05 { result != 0 } else { result < 0 }
    }

    /// Whether `spank_prepend_task_argv` exists.
    pub fn has_prepend_task_argv(self) -> bool {
        self >= Release::V23_11
    }

    /// Whether the data symbol `slurm_spank_init_failure_mode` is read.
    pub fn has_init_failure_mode(self) -> bool {
        self >= Release::V25_05
    }

    /// Whether slurmstepd takes an option once even when both srun's message and the environment
    /// carry it. Before, its callback runs twice in a step of srun.
    pub fn deduplicates_remote_options(self) -> bool {
        self >= Release::V24_05
    }

    /// Whether slurmstepd, when it removes options from the tasks' environment, overlooks the one
    /// behind each that it removes: of three the second is left. Seen on 24.11 and 26.05.
    pub fn overlooks_options(self) -> bool {
        self.deduplicates_remote_options()
    }

    /// Whether `--export=NONE` and lists keep `_SLURM_SPANK_OPTION_*` besides `SLURM*`.
    pub fn export_keeps_options(self) -> bool {
        self >= Release::V23_11
    }

    /// Whether `sbatch --export=NIL` is a word of its own.
    pub fn knows_export_nil(self) -> bool {
        self >= Release::V23_02
    }

    /// Whether srun refuses `--nodes` beside `--distribution=arbitrary`.
    pub fn refuses_nodes_with_arbitrary(self) -> bool {
        self >= Release::V23_11
    }

    /// Whether `--nodes` on srun's command line with a known `--ntasks-per-node` sets the number of
    /// tasks over `SLURM_NTASKS`. Before, the tasks stay and the tasks per node are dropped.
    pub fn nodes_and_per_node_beat_ntasks(self) -> bool {
        self >= Release::V23_02
    }

    /// Whether `srun --overlap` shares processors with steps that do not overlap.
    #[must_use]
    pub fn overlap_is_one_sided(self) -> bool {
        self > Self::V20_11
    }

    /// Whether slurmd loads a plugin that has `slurm_spank_init` alone. 20.11 wants
    /// `slurm_spank_slurmd_exit`.
    pub fn slurmd_loads_for_init(self) -> bool {
        self >= Release::V21_08
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor, _) = self.numbers();
        write!(f, "{major}.{minor:02}")
    }
}

impl std::str::FromStr for Release {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Release::ALL.into_iter().find(|release| release.to_string() == text).ok_or_else(|| {
            let known: Vec<_> = Release::ALL.iter().map(ToString::to_string).collect();
            format!("no simulated Slurm release {text:?}; there are {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_numbers_run_from_36_to_46() {
        assert_eq!(Release::V20_11.api_number(), 36);
        assert_eq!(Release::V22_05.api_number(), 38);
        assert_eq!(Release::V26_11.api_number(), 46);
        assert_eq!(Release::V22_05.api_version(), 38 << 16);
    }

    #[test]
    fn a_version_number_names_its_release_whatever_the_micro_number() {
        assert_eq!(Release::of_version_number(0x16_05_ff), Some(Release::V22_05));
        assert_eq!(Release::of_version_number(0x16_06_00), None);
    }

    #[test]
    fn a_release_is_read_back_from_its_name() {
        for release in Release::ALL {
            assert_eq!(release.to_string().parse(), Ok(release));
        }
        assert!("22.06".parse::<Release>().is_err());
    }
}
