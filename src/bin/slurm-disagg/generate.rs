// SPDX-License-Identifier: Apache-2.0
//! Completions and man pages, from the command line's own definition.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, CommandFactory, ValueHint};
use clap_complete::Shell;

use disagg::input::settings::TABLE;

use crate::args::Cli;
use crate::{Outcome, roff};

pub fn completions(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    let mut command = Cli::command().mut_subcommands(|command| command.mut_args(hinted));
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    let mends: &[_] = match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        _ => &[],
    };
    for (wrong, right) in mends {
        script = script.replace(wrong, right);
    }
    // In zsh, words about which nothing is known stand in the way of options.
    let is_known = |line: &&str| !(line.starts_with("'*:") && line.ends_with(":' \\"));
    let script: String =
        script.split_inclusive('\n').filter(|line| is_known(&line.trim_end())).collect();
    io::Write::write_all(&mut io::stdout(), script.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

const NAME: &str = "slurm-disagg";

/// Says what an argument's values are, by the name that its help gives them: no shell guesses it.
fn hinted(arg: Arg) -> Arg {
    let names = arg.get_value_names().unwrap_or_default();
    let hint = match names.first().map_or("", |name| name.as_str()) {
        "FILE" | "CONFIG" | "A" | "B" | "RUN" | "IMAGE" | "JOBID|WORKSPACE" => ValueHint::AnyPath,
        "LIST" if arg.get_id() == "test_list" => ValueHint::AnyPath,
        "DIR" | "DIRECTORY" | "WORKSPACE" => ValueHint::DirPath,
        _ => ValueHint::Other,
    };
    match arg.get_action().takes_values() && arg.get_possible_values().is_empty() {
        true => arg.value_hint(hint),
        false => arg,
    }
}

/// What the generated script for bash has wrong: a hyphen in the program's name spoils the tests for
/// subcommands, options stand in the way of files and subcommands where none was begun, and
/// `--option=value` is three words.
const BASH: &[(&str, &str)] = &[
    ("slurm__subcmd__disagg", "slurm__disagg"),
    (" || ${COMP_CWORD} -eq 1 ]]", " ]]"),
    (" || ${COMP_CWORD} -eq 2 ]]", " ]]"),
    (
        r#"
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;"#,
        r#"
            COMPREPLY=( $(compgen -W "${opts}" -X '-*' -- "${cur}") )
            return 0
            ;;"#,
    ),
    (
        r#"    prev="$3"
"#,
        r#"    prev="$3"
    if [[ ${cur} == = ]]; then
        cur=""
    elif [[ ${prev} == = ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
    fi
"#,
    ),
];

/// What the generated script for zsh has wrong: behind the first of several files no option is known.
const ZSH: &[(&str, &str)] = &[("'*::", "'*:")];

/// What the generated script for fish has wrong: `help` is a subcommand that was seen, and the values
/// of an argument without a name are left out.
const FISH: &[(&str, &str)] = &[
    (" man help\" -f", " man\" -f"),
    (
        "using_subcommand completions\" -s h",
        "using_subcommand completions\" -f -a 'bash elvish fish powershell zsh'
complete -c slurm-disagg -n \"__fish_slurm_disagg_using_subcommand completions\" -s h",
    ),
];

pub fn man_pages(directory: &Path) -> Outcome {
    let section = |number: u8| -> io::Result<PathBuf> {
        let section = directory.join(format!("man{number}"));
        std::fs::create_dir_all(&section)?;
        Ok(section)
    };
    clap_mangen::generate_to(Cli::command(), section(1)?)?;
    for (name, number, title, text) in [
        ("disagg.conf", 5, "limits of a site for disaggregated jobs", part("### disagg.conf")),
        ("slurm-disagg-site.yaml", 5, "settings of the command and the plugin", settings()),
        (
            "slurm-disagg-plugins",
            8,
            "the plugins of slurm-disagg, for administrators",
            ADMIN.to_owned(),
        ),
    ] {
        let page = roff::page(name, number, title, &text);
        std::fs::write(section(number)?.join(format!("{name}.{number}")), page)?;
    }
    Ok(ExitCode::SUCCESS)
}

const ADMIN: &str = include_str!("../../../docs/admin.md");

/// A part of the administrator's page: from its heading to the next one.
fn part(heading: &str) -> String {
    let text = ADMIN.split_once(heading).map_or("", |(_, text)| text);
    text.split("\n#").next().unwrap_or_default().to_owned()
}

/// The keys of site.yaml.
fn settings() -> String {
    let mut text = "Settings of a site in /etc/slurm-disagg/site.yaml, and of a user in \
                    ~/.config/slurm-disagg/site.yaml, in YAML. The user's win over the site's, environment \
                    variables over both, and options over all. An unknown key is an error.\n\n\
                    | key | meaning |\n|---|---|\n"
        .to_owned();
    for (setting, key) in TABLE.iter().filter_map(|setting| Some((setting, setting.key?))) {
        text += &format!("| `{key}` | {} |\n", setting.help().replace('|', "\\|"));
    }
    text
}
