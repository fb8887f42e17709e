// SPDX-License-Identifier: Apache-2.0
//! Further arguments for sbatch and srun, as a site or a user gives them. They go to Slurm as they
//! are, so one that contradicts the plan would break the job after it is queued: it is an error
//! here.

use super::settings::{self, Setting, Settings};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::plan::{Traced, words};

/// Whose arguments they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `sbatch`, which gets the job.
    Sbatch,
    /// `srun`, which gets each step.
    Srun,
}
use Program::{Sbatch, Srun};

impl Program {
    /// Short options without a value: another one may follow in the same word.
    fn short_flags(self) -> &'static str {
        match self {
            Sbatch => "HIkOQsuvhVW",
            Srun => "EHIKklOQsuvXZhV",
        }
    }
}

/// An option that is refused.
struct Refused {
    long: &'static str,
    short: Option<char>,
    /// Only for this program; for both without one.
    only: Option<Program>,
    /// The setting to use instead.
    instead: Option<&'static Setting>,
}

const fn both(long: &'static str) -> Refused {
    Refused { long, short: None, only: None, instead: None }
}

impl Refused {
    const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    const fn only(self, program: Program) -> Self {
        Self { only: Some(program), ..self }
    }

    const fn instead(self, setting: &'static Setting) -> Self {
        Self { instead: Some(setting), ..self }
    }
}

/// What the plan, the launcher or the submission sets.
const REFUSED: &[Refused] = &[
    both("nodes").short('N'),
    both("ntasks").short('n'),
    both("ntasks-per-node"),
    both("tasks-per-node"),
    both("ntasks-per-core"),
    both("ntasks-per-gpu"),
    both("ntasks-per-socket"),
    both("nodelist").short('w'),
    both("nodefile").short('F'),
    both("distribution").short('m'),
    both("gpus").short('G').instead(&settings::GPU_REQUEST),
    both("gpus-per-node").instead(&settings::GPU_REQUEST),
    both("gpus-per-socket").instead(&settings::GPU_REQUEST),
    both("gpus-per-task").instead(&settings::GPU_REQUEST),
    both("gpu-bind"),
    both("gres").instead(&settings::GPU_REQUEST),
    both("gres-flags"),
    both("tres-bind"),
    both("tres-per-job").instead(&settings::GPU_REQUEST),
    both("tres-per-node").instead(&settings::GPU_REQUEST),
    both("tres-per-socket").instead(&settings::GPU_REQUEST),
    both("tres-per-task").instead(&settings::GPU_REQUEST),
    both("job-name").short('J').instead(&settings::JOB_NAME),
    both("output").short('o'),
    both("error").short('e'),
    both("input").short('i'),
    both("chdir").short('D'),
    both("export"),
    both("export-file"),
    both("jobid"),
    both("het-group"),
    both("test-only"),
    both("help").short('h'),
    both("usage"),
    both("version").short('V'),
    both("disagg-config"),
    both("disagg-test"),
    both("disagg-role"),
    both("disagg-placement"),
    both("disagg-explain"),
    both("disagg-again"),
    both("time").short('t').only(Sbatch).instead(&settings::TIME),
    both("segment").only(Sbatch).instead(&settings::SEGMENT),
    both("array").short('a').only(Sbatch),
    both("wrap").only(Sbatch),
    both("parsable").only(Sbatch),
    both("wait").short('W').only(Sbatch),
    both("mpi").only(Srun).instead(&settings::MPI),
    both("overlap").only(Srun),
    both("exclusive").only(Srun),
    both("exclude").short('x').only(Srun),
    both("relative").short('r').only(Srun),
    both("kill-on-bad-exit").short('K').only(Srun),
    both("no-allocate").short('Z').only(Srun),
    both("preserve-env").short('E').only(Srun),
    both("multi-prog").only(Srun),
    both("pty").only(Srun),
    both("container").only(Srun).instead(&settings::CONTAINER_IMAGE),
    both("container-image").only(Srun).instead(&settings::CONTAINER_IMAGE),
    both("container-mounts").only(Srun).instead(&settings::CONTAINER_MOUNTS),
    both("container-name").only(Srun),
    both("container-workdir").only(Srun),
    both("container-env").only(Srun),
];

/// Options of sbatch with a setting: refused only where that setting has a value too.
const SETTABLE: &[Refused] = &[
    both("account").short('A').instead(&settings::ACCOUNT),
    both("partition").short('p').instead(&settings::PARTITION),
    both("qos").short('q').instead(&settings::QOS),
    both("constraint").short('C').instead(&settings::CONSTRAINT),
    both("reservation").instead(&settings::RESERVATION),
    both("exclusive").instead(&settings::EXCLUSIVE),
    both("mem").instead(&settings::MEM),
];

/// Brings arguments into one-word form (`--name=value`, `-Xvalue`) and adds those that contradict
/// the plan to the errors.
pub(super) fn check(
    program: Program,
    arguments: impl IntoIterator<Item = Traced<String>>,
    given: &Settings,
    errors: &mut Diagnostics,
) -> Vec<Traced<String>> {
    let words = one_word_each(program, arguments, errors);
    for word in &words {
        let Some(refused) = refused(program, &word.value, given) else { continue };
        let long = refused.long;
        let same =
            word.value == format!("--{long}") || word.value.starts_with(&format!("--{long}="));
        let alias = if same { String::new() } else { format!(" (--{long})") };
        // What is exported may be a secret.
        let is_hidden = ["export", "container-env"].contains(&long);
        let shown = if is_hidden { format!("--{long}") } else { word.value.clone() };
        let message = format!(
            "{}: {shown}{alias} contradicts the plan, which decides --{long}",
            word.origin.input
        );
        let help = match refused.instead {
            Some(setting) => setting.how_to_set(),
            None => "remove it".to_owned(),
        };
        errors.push(Diagnostic::error(message).at(word.origin.location.clone()).help(help));
    }
    words
}

/// Who asks for a node's GPUs, where a configuration does so in its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfGpus {
    /// The plan, in its own way.
    ByPlan,
    /// That option, as it is there.
    AsThere,
}

/// The options that a configuration has in one line, but those that contradict the plan: these are
/// warnings, since a configuration is not written for one cluster. The GPUs of a node that it asks
/// for are asked for by the plan; where `gpus_per_node` is not known, that is an error of its own.
pub(super) fn of_config(
    line: &Traced<String>,
    gpus_per_node: Option<u32>,
    given: &Settings,
    gpus: OfGpus,
    warnings: &mut Vec<Diagnostic>,
) -> Vec<Traced<String>> {
    let origin = &line.origin;
    let mut unused = |message: String, help: String| {
        warnings.push(Diagnostic::warning(message).at(origin.location.clone()).help(help));
    };
    let words = match words::split(&line.value) {
        Ok(words) => words,
        Err(error) => {
            let help = "write words that sbatch takes, without variables and operators".to_owned();
            unused(format!("{} is not used: {error}", origin.input), help);
            return Vec::new();
        }
    };
    let word =
        |word: words::Word| Traced::new(word.value.literal_text().into_owned(), origin.clone());
    let mut wrong = Diagnostics::default();
    let mut words = one_word_each(Sbatch, words.into_iter().map(word), &mut wrong);
    for diagnostic in wrong.0 {
        unused(diagnostic.message, "remove it".to_owned());
    }
    words.retain(|word| {
        let Some(refused) = refused(Sbatch, &word.value, given) else { return true };
        let count = word.value.rsplit([':', '=']).next().and_then(|count| count.parse().ok());
        let asks_for_gpus = ["gres", "gpus-per-node"].contains(&refused.long)
            && count.is_some_and(|count: u32| gpus_per_node.is_none_or(|gpus| gpus == count));
        if !asks_for_gpus {
            let message = format!(
                "{}: {} is not used: the plan decides --{}",
                origin.input, word.value, refused.long
            );
            let help = refused.instead.map_or("remove it".to_owned(), Setting::how_to_set);
            unused(message, help);
        }
        asks_for_gpus && gpus == OfGpus::AsThere
    });
    words
}

fn one_word_each(
    program: Program,
    arguments: impl IntoIterator<Item = Traced<String>>,
    errors: &mut Diagnostics,
) -> Vec<Traced<String>> {
    let mut words: Vec<Traced<String>> = Vec::new();
    for mut argument in arguments {
        let text = argument.value.trim();
        let is_option = text.len() > 1 && text.starts_with('-') && text != "--";
        let before = words.last_mut().filter(|word| takes_next_word(program, &word.value));
        if is_option {
            argument.value = joined(text);
            words.push(argument);
        } else if let Some(word) = before {
            word.value = joined(&format!("{} {text}", word.value));
        } else {
            let message = format!("{}: {:?} is not an option", argument.origin.input, text);
            let help = "write one option in each entry: --name, --name=value or -Xvalue";
            errors.push(Diagnostic::error(message).at(argument.origin.location).help(help));
        }
    }
    words
}

/// Whether the next word may be the option's value.
fn takes_next_word(program: Program, word: &str) -> bool {
    match word.strip_prefix("--") {
        Some(long) => !long.contains('='),
        None => word.len() == 2 && !word.ends_with(|flag| program.short_flags().contains(flag)),
    }
}

/// `--name value` and `-X value` as one word.
fn joined(text: &str) -> String {
    let Some((name, value)) = text.split_once(char::is_whitespace) else { return text.to_owned() };
    match name.strip_prefix("--") {
        Some(long) if !long.contains('=') => format!("{name}={}", value.trim_start()),
        None if name.len() == 2 => format!("{name}{}", value.trim_start()),
        _ => text.to_owned(),
    }
}

/// The refused option that a word contains. Slurm reads long options by any unique start of their
/// names, and several short ones in one word.
fn refused(program: Program, word: &str, given: &Settings) -> Option<&'static Refused> {
    let always = REFUSED.iter().filter(|option| option.only.is_none_or(|only| only == program));
    let settable = SETTABLE.iter().filter(|option| {
        program == Sbatch && option.instead.is_some_and(|setting| given.has(setting))
    });
    let mut all = always.chain(settable);
    if let Some(long) = word.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or_default();
        let exact = all.clone().find(|option| option.long == name);
        return exact.or_else(|| all.find(|option| option.long.starts_with(name)));
    }
    for short in word.chars().skip(1) {
        if let Some(option) = all.clone().find(|option| option.short == Some(short)) {
            return Some(option);
        }
        if !program.short_flags().contains(short) {
            break;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Origin;

    fn checked(program: Program, words: &[&str], given: &Settings) -> Result<Vec<String>, String> {
        let arguments =
            words.iter().map(|word| Traced::new((*word).to_owned(), Origin::input("sbatch_args")));
        let mut errors = Diagnostics::default();
        let words = check(program, arguments, given, &mut errors);
        match errors.0.is_empty() {
            true => Ok(words.into_iter().map(|word| word.value).collect()),
            false => Err(errors.to_string()),
        }
    }

    #[test]
    fn every_form_of_an_option_that_the_plan_decides_is_refused_by_name() {
        for (words, long) in [
            (&["--nodes=3"][..], "--nodes"),
            (&["--nodes", "3"], "--nodes"),
            (&["--nodes 3"], "--nodes"),
            (&["-N3"], "--nodes"),
            (&["-N", "3"], "--nodes"),
            (&["-N 3"], "--nodes"),
            (&["-HvN3"], "--nodes"),
            (&["--comment=x", "--ntasks-per-n=4"], "--ntasks-per-node"),
            (&["-n4"], "--ntasks"),
            (&["-wnode1"], "--nodelist"),
            (&["--gpus=8"], "--gpus"),
            (&["-G", "8"], "--gpus"),
            (&["--gpus-per-task=h100:1"], "--gpus-per-task"),
            (&["--gres=gpu:8"], "--gres"),
            (&["--tres-per-node=gres/gpu:8"], "--tres-per-node"),
            (&["-o", "x.log"], "--output"),
            (&["-Jx"], "--job-name"),
            (&["-m", "cyclic"], "--distribution"),
            (&["--jobid=4"], "--jobid"),
        ] {
            for program in [Sbatch, Srun] {
                let message = checked(program, words, &Settings::default()).unwrap_err();
                let part = format!("contradicts the plan, which decides {long}\n");
                assert!(message.contains(&part), "{words:?}: {message}");
            }
        }
    }

    #[test]
    fn each_program_has_options_of_its_own_to_refuse() {
        for (word, by_sbatch) in [
            ("--array=1-3", true),
            ("-a1-3", true),
            ("--wrap=true", true),
            ("--pars", true),
            ("-W", true),
            ("-t5", true),
            ("--overlap", false),
            ("--mpi=pmi2", false),
            ("--exclusive", false),
            ("-xnode1", false),
            ("-K0", false),
            ("--container-name=x", false),
        ] {
            let given = Settings::default();
            assert_eq!(checked(Sbatch, &[word], &given).is_err(), by_sbatch, "{word}");
            assert_eq!(checked(Srun, &[word], &given).is_err(), !by_sbatch, "{word}");
        }
    }

    #[test]
    fn what_the_plan_leaves_open_goes_to_slurm_as_one_word_each() {
        let words = [
            "--comment",
            "two words",
            "--mail-type=END",
            "-c",
            "4",
            "-x node1",
            "--time-min=5",
            "--hint=nomultithread",
            "-H",
            "--mem-per-cpu=1G",
        ];
        let expected = [
            "--comment=two words",
            "--mail-type=END",
            "-c4",
            "-xnode1",
            "--time-min=5",
            "--hint=nomultithread",
            "-H",
            "--mem-per-cpu=1G",
        ];
        assert_eq!(checked(Sbatch, &words, &Settings::default()).unwrap(), expected);
    }

    #[test]
    fn an_option_with_a_setting_is_refused_where_the_setting_has_a_value() {
        let mut given = Settings::default();
        for word in ["--qos=high", "-qhigh", "--exclusive", "--mem=0", "-A", "-C gpu"] {
            assert!(checked(Sbatch, &[word], &given).is_ok(), "{word}");
        }
        given.qos = Some(Traced::new("low".into(), Origin::input("qos")));
        let message = checked(Sbatch, &["-qhigh"], &given).unwrap_err();
        assert!(message.contains("-qhigh (--qos) contradicts the plan"), "{message}");
        assert!(message.contains("set --qos or qos (site.yaml)"), "{message}");
    }

    #[test]
    fn a_configuration_s_options_are_used_but_for_those_that_contradict_the_plan() {
        let used = |line: &str| {
            let line = Traced::new(line.to_owned(), Origin::input("slurm.extra_args"));
            let mut warnings = Vec::new();
            let (given, by_plan) = (Settings::default(), OfGpus::ByPlan);
            let words = of_config(&line, Some(4), &given, by_plan, &mut warnings);
            let words: Vec<_> = words.into_iter().map(|word| word.value).collect();
            let warnings: Vec<_> = warnings.into_iter().map(|warning| warning.message).collect();
            (words.join("|"), warnings.join("|"))
        };
        let all = "--gres=gpu:4 --gpus-per-node h100:4 --exclude=n1,n2 --comment='a b'";
        assert_eq!(used(all), ("--exclude=n1,n2|--comment=a b".to_owned(), String::new()));
        for (line, why) in [
            ("--gres=gpu:8", "slurm.extra_args: --gres=gpu:8 is not used: the plan decides --gres"),
            ("-N 3", "slurm.extra_args: -N3 is not used: the plan decides --nodes"),
            ("job.sh", "slurm.extra_args: \"job.sh\" is not an option"),
        ] {
            assert_eq!(used(line), (String::new(), why.to_owned()));
        }
        assert!(used("--comment=$(id)").1.starts_with("slurm.extra_args is not used: "));
    }

    #[test]
    fn a_word_that_is_no_option_never_becomes_the_script() {
        for words in
            [&["job.sh"][..], &["--comment=x", "job.sh"], &["-H", "job.sh"], &["--"], &["-"]]
        {
            let message = checked(Sbatch, words, &Settings::default()).unwrap_err();
            assert!(message.contains("is not an option"), "{words:?}: {message}");
        }
    }
}
