// SPDX-License-Identifier: Apache-2.0
//! How Slurm writes a GPU request in a TRES string, which differs between releases.
//! Reading accepts every form; writing uses the one of the release that the plugin was built for.

/// The form in which slurmctld of a release expects the items of `tres_per_node`.
///
/// Seen with `--gpus-per-node=2` on each of these releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TresForm {
    /// `gpu:2`, up to 20.11.
    Bare,
    /// `gres:gpu:2`, 21.08 to 23.02.
    Colon,
    /// `gres/gpu:2`, from 23.11 on.
    Slash,
}

impl TresForm {
    /// The form of a release, given as `SLURM_VERSION_NUMBER` (`0x160508` is 22.05.8).
    #[must_use]
    pub const fn of_release(version: u32) -> Self {
        match version >> 8 {
            0..0x1508 => Self::Bare,
            0x1508..0x170b => Self::Colon,
            _ => Self::Slash,
        }
    }

    /// `others` (what the user asked for besides GPUs) with `gpus` GPUs of a type per node added.
    #[must_use]
    pub fn with_gpus(self, others: Option<&str>, kind: Option<&str>, gpus: u32) -> String {
        let prefix = match self {
            Self::Bare => "",
            Self::Colon => "gres:",
            Self::Slash => "gres/",
        };
        let kind = kind.map(|kind| format!("{kind}:")).unwrap_or_default();
        match others {
            Some(others) if !others.is_empty() => format!("{others},{prefix}gpu:{kind}{gpus}"),
            _ => format!("{prefix}gpu:{kind}{gpus}"),
        }
    }
}

/// The GPUs that a TRES string asks for, all types together; `None` when it names none.
///
/// An item without a count is one GPU; counts may carry Slurm's suffixes (`2k` is 2048). A count
/// too large for 64 bits is the largest of them, so that it contradicts any plan.
#[must_use]
pub fn gpus(tres: &str) -> Option<u64> {
    let counts = tres.split([',', ';']).filter_map(item_gpus);
    counts.fold(None, |sum, n| Some(sum.unwrap_or(0u64).saturating_add(n)))
}

/// The GPU type of a TRES string: `None` when it names no GPUs, or GPUs without a type.
///
/// # Errors
/// When it names several types, which no single request per node can say.
pub fn only_type(tres: &str) -> Result<Option<&str>, SeveralTypes> {
    let mut types = tres.split([',', ';']).filter_map(gpu_words).map(|mut words| {
        let first = words.next();
        first.filter(|word| words.next().is_some() || count(word).is_none())
    });
    let Some(first) = types.next() else { return Ok(None) };
    if types.all(|other| other == first) { Ok(first) } else { Err(SeveralTypes) }
}

/// A TRES string names GPUs of several types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeveralTypes;

/// What follows `gpu` in an item: a type, a count, both or neither.
fn gpu_words(item: &str) -> Option<impl DoubleEndedIterator<Item = &str>> {
    let item = item.trim();
    let item = item.strip_prefix("gres:").or_else(|| item.strip_prefix("gres/")).unwrap_or(item);
    let mut words = item.split([':', '=']);
    (words.next() == Some("gpu")).then_some(words)
}

fn item_gpus(item: &str) -> Option<u64> {
    Some(gpu_words(item)?.next_back().and_then(count).unwrap_or(1))
}

/// A decimal number with an optional suffix; `None` for anything else (a GPU type, for one).
fn count(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match &word[digits.len()..] {
        "" => 0,
        "k" | "K" => 1,
        "m" | "M" => 2,
        "g" | "G" => 3,
        "t" | "T" => 4,
        "p" | "P" => 5,
        _ => return None,
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1024u64.pow(power)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_release_s_form_is_read() {
        for text in ["gpu:4", "gres:gpu:4", "gres/gpu:4", "gres/gpu=4", "gres:gpu:h100:4"] {
            assert_eq!(gpus(text), Some(4), "{text}");
        }
    }

    #[test]
    fn an_item_without_a_count_is_one_gpu() {
        assert_eq!(gpus("gres:gpu"), Some(1));
        assert_eq!(gpus("gres:gpu:h100"), Some(1));
    }

    #[test]
    fn types_are_added_up() {
        assert_eq!(gpus("gres:gpu:a100:1,gres:nic:2,gres:gpu:h100:3"), Some(4));
    }

    #[test]
    fn other_resources_are_not_gpus() {
        assert_eq!(gpus("gres:nic:2,cpu=4,gres/gpumem:8"), None);
        assert_eq!(gpus(""), None);
    }

    #[test]
    fn suffixes_count_in_1024s() {
        assert_eq!(gpus("gres:gpu:2k"), Some(2048));
        assert_eq!(gpus("gpu:99999999999999999999"), Some(u64::MAX));
    }

    #[test]
    fn the_type_is_what_stands_before_the_count() {
        for (text, kind) in [
            ("gres:gpu:h100:4", Ok(Some("h100"))),
            ("gres/gpu:h100=4", Ok(Some("h100"))),
            ("gres:gpu:h100", Ok(Some("h100"))),
            ("gres:gpu:h100:2,gres:nic:1,gres:gpu:h100:2", Ok(Some("h100"))),
            ("gres:gpu:4", Ok(None)),
            ("gres:gpu:2k", Ok(None)),
            ("gres:nic:4", Ok(None)),
            ("gres:gpu:h100:2,gres:gpu:a100:2", Err(SeveralTypes)),
            ("gres:gpu:h100:2,gres:gpu:2", Err(SeveralTypes)),
        ] {
            assert_eq!(only_type(text), kind, "{text}");
        }
    }

    #[test]
    fn each_release_gets_its_own_form() {
        let written = |v| TresForm::of_release(v).with_gpus(None, None, 2);
        assert_eq!(written(0x140b09), "gpu:2");
        assert_eq!(written(0x150808), "gres:gpu:2");
        assert_eq!(written(0x170208), "gres:gpu:2");
        assert_eq!(written(0x170b0b), "gres/gpu:2");
        assert_eq!(written(0x1a0503), "gres/gpu:2");
    }

    #[test]
    fn what_the_user_asked_for_besides_gpus_stays() {
        assert_eq!(TresForm::Colon.with_gpus(Some("gres:nic:1"), None, 4), "gres:nic:1,gres:gpu:4");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}") {
            let _ = (gpus(&text), only_type(&text));
        }

        #[test]
        fn what_is_written_reads_back(n in 1u32..65_000, version in 0x140000u32..0x200000) {
            let text = TresForm::of_release(version).with_gpus(Some("license:1"), None, n);
            prop_assert_eq!(gpus(&text), Some(u64::from(n)));
        }
    }
}
