// SPDX-License-Identifier: Apache-2.0
//! The launcher of performance tests in a source tree: whose rules it follows, by what is in it, and
//! whether it is one of the versions that the rules were checked with.

use std::path::Path;

use super::config::sha256;
use super::source;
use crate::diagnostic::Diagnostic;
use crate::plan::Generation;

/// Where launchers are, below the source tree.
const DIRECTORY: &str = "jenkins/scripts/perf";
/// The launchers of a source tree, the newest first.
pub const LAUNCHERS: [&str; 2] =
    ["jenkins/scripts/perf/submit.py", "jenkins/scripts/perf/disaggregated/submit.py"];
/// The UCX settings of the current rules, beside their launcher.
const CLUSTERS: &str = "jenkins/scripts/perf/cluster_env.py";

/// What tells that a launcher takes the cluster's name.
const CLUSTER_OPTION: &str = "\"--cluster-name\"";
/// What tells the rules that a launcher follows: the variable that only their launch scripts
/// export, and what there is besides. The first that fits counts.
const MARKERS: [(Generation, &[&str]); 3] = [
    (Generation::Current, &["export pytestCommandCTXWorker=", CLUSTER_OPTION]),
    (Generation::Unified, &["export pytestCommandCTXWorker="]),
    (Generation::Classic, &["export pytestCommandWorker="]),
];
/// What the text of a launcher contains that runs prechecks.
const PRECHECK: &str = "precheck";

/// The files that the rules were compared with (`slurm-disagg verify`), by their SHA-256, the commit
/// of TensorRT-LLM that has them, and how their tests differ from our rules.
const VERSIONS: &[Version] = &[
    // submit.py
    ("79ddde0e479d66b51524d3b281d5e66e0abab6ee5c1b95b12587ac664b1b2d4d", "38008ea", ""),
    ("7ec96728abd3b3f2462221b2c960c4e5e2f200e931eb5532c483bebff07368d3", "1ce15b5", ""),
    (
        "0b7bab2dca853a604eec5d3f5225fd74a80a833318c868aa0b9e7b6c22087bb5",
        "39778d3",
        "TRTLLM_DISABLE_KV_CACHE_TRANSFER_OVERLAP=1 for CTX in gen_only tests",
    ),
    ("d0d6dbcc9678f106cf973515077021c7fe0c4be20f51b145688491454c0554bc", "05323f9", ""),
    (
        "ff3dd5d2f59bd497f4108377516c760294e923130dc64c262d49cd5ba39e1d79",
        "ea597c0",
        "more time for prechecks, by the size of the servers",
    ),
    (
        "d8a223de281a024ed0af0b67e18861a607857a082f21c5bf5d38a2d2d957b714",
        "1a43c7d",
        "no gen_worker_env_var and ctx_worker_env_var, and a queue without a limit",
    ),
    // disaggregated/submit.py
    ("a333894ab786ba6ca1a9b717de7e732bc27f07f241a9a04c267a5229b879b2b4", "0c8de69", ""),
    // cluster_env.py
    ("f0d2051fa1412d0d7a1d72839c0f9e2b68a41f1623584d54cbf507b07b90ddd3", "0f80f6b", ""),
    (
        "277d1284350141b2e68ce3cfe1008c5488fb60887d5730648f3b87594c00d9b1",
        "39778d3",
        "other UCX settings for gcp-nrt*, oci-aga* and aws-cmh*",
    ),
];

/// The launcher of a source tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Launcher {
    /// The rules that it follows; the newest for an unknown one.
    pub follows: Generation,
    /// How they are known.
    pub why: String,
    /// What the user should know about it.
    pub note: Option<Diagnostic>,
    /// Whether it runs prechecks.
    pub has_precheck: bool,
}

impl Launcher {
    /// The launcher of a source tree that has one.
    pub fn of_tree(source_dir: &Path) -> Option<Self> {
        Self::among(VERSIONS, source_dir)
    }

    fn among(versions: &[Version], source_dir: &Path) -> Option<Self> {
        let is_file = |name: &&str| source_dir.join(name).is_file();
        if let Some(name) = LAUNCHERS.into_iter().find(is_file) {
            return Some(Self::read(versions, source_dir, name));
        }
        let is_python = |entry: std::fs::DirEntry| entry.path().extension() == Some("py".as_ref());
        let mut entries = source_dir.join(DIRECTORY).read_dir().ok()?.flatten();
        entries.any(is_python).then(|| Self::unknown(DIRECTORY, "is unknown"))
    }

    fn read(versions: &[Version], source_dir: &Path, name: &'static str) -> Self {
        let text = match source::read(&source_dir.join(name), name) {
            Ok(source) => source,
            Err(error) => {
                let why = error.message.trim_start_matches(&format!("{name}: "));
                return Self::unknown(name, &format!("cannot be read: {why}"));
            }
        };
        let text = text.text.as_str();
        let fits = |marks: &[&str]| marks.iter().all(|mark| text.contains(mark));
        let Some((rules, _)) = MARKERS.into_iter().find(|(_, marks)| fits(marks)) else {
            return Self::unknown(name, "is unknown");
        };
        let (mut unknown, mut about) = (Vec::new(), Vec::new());
        let mut compare = |name: &'static str, text: &str| {
            let hash = sha256(text.as_bytes());
            let known = versions.iter().find(|(known, ..)| *known == hash);
            match known {
                None => unknown.push(name),
                Some((.., "")) => {}
                Some((_, commit, differs)) => about.push(format!(
                    "{name} of the source tree (TensorRT-LLM {commit}) differs from the {rules} rules: {differs}"
                )),
            }
            known.map(|(_, commit, _)| *commit)
        };
        let why = match compare(name, text) {
            Some(commit) => format!("the source tree has {name} of TensorRT-LLM {commit}"),
            None => format!("the source tree has a {name} of this form"),
        };
        if rules == Generation::Current
            && let Ok(clusters) = source::read(&source_dir.join(CLUSTERS), CLUSTERS)
        {
            compare(CLUSTERS, &clusters.text);
        }
        if !unknown.is_empty() {
            let are = if unknown.len() == 1 { "is" } else { "are" };
            about.push(format!(
                "{} of the source tree {are} not among the versions that the {rules} rules were \
                 checked with",
                unknown.join(" and ")
            ));
        }
        let note = (!about.is_empty()).then(|| {
            Diagnostic::note(about.join("; "))
                .help("`slurm-disagg verify` shows what differs; --rules silences this note")
        });
        Self { follows: rules, why, note, has_precheck: text.contains(PRECHECK) }
    }

    fn unknown(name: &str, what: &str) -> Self {
        let why = format!("{name} of the source tree {what}, so the newest rules apply");
        let note = Diagnostic::note(&why).help("choose with --rules");
        Self { follows: Generation::NEWEST, why, note: Some(note), has_precheck: true }
    }

    /// The rules that it decides on; none for a classic one, whose tree has other tests too: there
    /// the form of a test id decides.
    pub fn rules(&self) -> Option<Generation> {
        Some(self.follows).filter(|rules| *rules != Generation::Classic)
    }
}

/// A line of [`VERSIONS`].
type Version = (&'static str, &'static str, &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "f'export pytestCommandCTXWorker=\"{x}'\n";
    const CLUSTER: &str = "parser.add_argument(\n    \"--cluster-name\",\n)\n";
    const OLD: &str = "f'export pytestCommandWorker=\"unset UCX_TLS && $pytestCommand\"'\n";

    fn launcher(files: &[(&str, &str)]) -> Option<Launcher> {
        among(VERSIONS, files)
    }

    fn among(versions: &[Version], files: &[(&str, &str)]) -> Option<Launcher> {
        let tree = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = tree.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Launcher::among(versions, tree.path())
    }

    #[test]
    fn what_is_in_a_launcher_tells_its_rules() {
        let [newer, older] = LAUNCHERS;
        let current = format!("{NEW}{CLUSTER}");
        let other = format!("{DIRECTORY}/launch.py");
        for (files, rules, why) in [
            (vec![(newer, &*current), (older, OLD)], Some(Generation::Current), "of this form"),
            (vec![(newer, NEW)], Some(Generation::Unified), "of this form"),
            (vec![(newer, NEW), (CLUSTERS, "")], Some(Generation::Unified), "of this form"),
            (vec![(older, NEW)], Some(Generation::Unified), "of this form"),
            // Its tree has tests of one server too, with a launcher of their own.
            (vec![(older, OLD)], None, "of this form"),
            (vec![(newer, CLUSTER), (older, OLD)], Some(Generation::NEWEST), "is unknown, so"),
            (vec![(newer, "")], Some(Generation::NEWEST), "is unknown, so the newest rules"),
            (vec![(&*other, NEW)], Some(Generation::NEWEST), "is unknown, so the newest rules"),
        ] {
            let launcher = launcher(&files).unwrap();
            assert_eq!(launcher.rules(), rules, "{files:?}");
            assert!(launcher.why.contains(why), "{files:?}: {}", launcher.why);
            assert!(launcher.note.is_some(), "{files:?}");
        }
        assert_eq!(launcher(&[("README.md", "")]), None);
        assert!(!launcher(&[(newer, NEW)]).unwrap().has_precheck);
        let has =
            launcher(&[(newer, &format!("{NEW}f'export ctPrecheckEnabled='\nimport precheck"))]);
        assert!(has.unwrap().has_precheck);
    }

    #[test]
    fn a_launcher_that_cannot_be_read_is_unknown() {
        let large = "#".repeat(source::MAX_FILE as usize + 1);
        let launcher = launcher(&[(LAUNCHERS[0], &large)]).unwrap();
        assert_eq!(launcher.rules(), Some(Generation::NEWEST));
        assert!(launcher.why.contains("at most 4194304 are read"), "{}", launcher.why);
    }

    #[test]
    fn a_version_is_named_by_its_contents_and_any_other_is_noted() {
        let note = |launcher: &Launcher| launcher.note.as_ref().unwrap().to_string();
        let changed = launcher(&[(LAUNCHERS[0], NEW)]).unwrap();
        assert!(note(&changed).contains("not among the versions that the unified rules"));
        assert!(note(&changed).contains("`slurm-disagg verify` shows what differs"));
        let both = [(LAUNCHERS[0], &*format!("{NEW}{CLUSTER}")), (CLUSTERS, "")];
        assert!(note(&launcher(&both).unwrap()).contains("submit.py and jenkins"));
        let hash = |text: &str| &*sha256(text.as_bytes()).leak();
        let known = [(hash(both[0].1), "aaaaaaa", ""), (hash(""), "bbbbbbb", "other settings")];
        let named = among(&known, &both).unwrap();
        assert!(named.why.ends_with("perf/submit.py of TensorRT-LLM aaaaaaa"), "{}", named.why);
        let expected = "cluster_env.py of the source tree (TensorRT-LLM bbbbbbb) differs from the current rules: other settings";
        assert!(
            note(&named).contains(expected) && !note(&named).contains("submit.py"),
            "{named:?}"
        );
        assert_eq!(among(&known, &both[..1]).unwrap().note, None);
        for (at, (hash, commit, _)) in VERSIONS.iter().enumerate() {
            assert!(hash.len() == 64 && commit.len() == 7, "{hash}");
            assert!(VERSIONS[..at].iter().all(|(other, ..)| other != hash), "{hash}");
        }
    }
}
