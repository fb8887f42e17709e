// SPDX-License-Identifier: Apache-2.0
//! Completions and man pages, from the command line's own definition.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, CommandFactory, ValueHint};
use clap_complete::Shell;

use crate::Outcome;
use crate::args::Cli;

pub fn completions(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    let mut command = Cli::command().mut_subcommands(|command| command.mut_args(hinted));
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    let mends: &[_] = match shell {
        Shell::Bash => BASH,
        Shell::Fish => FISH,
        _ => &[],
    };
    for (wrong, right) in mends {
        script = script.replace(wrong, right);
    }
    io::Write::write_all(&mut io::stdout(), script.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

const NAME: &str = "slurm-disagg";

/// Says what an argument's values are, by the name that its help gives them: no shell guesses it.
fn hinted(arg: Arg) -> Arg {
    let names = arg.get_value_names().unwrap_or_default();
    let hint = match names.first().map_or("", |name| name.as_str()) {
        "FILE" | "CONFIG" | "A" | "B" | "IMAGE" | "JOBID|WORKSPACE" => ValueHint::AnyPath,
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
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)?;
    Ok(ExitCode::SUCCESS)
}
