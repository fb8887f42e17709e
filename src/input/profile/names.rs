// SPDX-License-Identifier: Apache-2.0
//! The names that a profile may refer to: placeholders, roles, ports, sizes.

use crate::diagnostic::{Diagnostic, nearest};
use crate::input::fields::Fields;
use crate::plan::expr::Pattern;
use crate::plan::health::{Minimum, Ready};
use crate::plan::origin::{Origin, Traced};
use crate::plan::profile::{ConfigItem, Item, Profile, ProfileRole};

/// The placeholders, each with what follows its colon: nothing, a role, a port, a role's port, an
/// argument or a size.
const PLACEHOLDERS: &[(&str, Of)] = &[
    ("model", Of::Nothing),
    ("served_name", Of::Nothing),
    ("workspace", Of::Nothing),
    ("name", Of::Nothing),
    ("index", Of::Nothing),
    ("gpu_count", Of::Nothing),
    ("interface", Of::Nothing),
    ("log_level", Of::Nothing),
    ("log_level_upper", Of::Nothing),
    ("profiled_steps", Of::Nothing),
    ("gpus_per_node", Of::Nothing),
    ("nnodes", Of::Nothing),
    ("tasks", Of::Nothing),
    ("node_rank", Of::Nothing),
    ("rank", Of::Nothing),
    ("local_rank", Of::Nothing),
    ("node_addr", Of::Nothing),
    ("args", Of::Nothing),
    ("wrap", Of::Nothing),
    ("config", Of::Nothing),
    ("leader_addr", Of::RoleOrNothing),
    ("count", Of::RoleOrNothing),
    ("port", Of::Port),
    ("addrs", Of::PortOfRole),
    ("urls", Of::PortOfRole),
    ("url", Of::PortOfRole),
    ("size", Of::Size),
    ("arg", Of::Argument),
];

#[derive(Clone, Copy, PartialEq)]
enum Of {
    Nothing,
    RoleOrNothing,
    Port,
    PortOfRole,
    Size,
    Argument,
}

/// Whether all that a profile refers to exists, whatever a recipe says.
pub(super) fn check(fields: &mut Fields<'_>, profile: &Profile) {
    let mut names = Vec::new();
    for (mode, roles) in &profile.modes {
        for role in roles.iter().filter(|role| !profile.roles.contains_key(*role)) {
            names.push((format!("modes.{mode}: unknown role {role}"), None));
        }
    }
    for (key, role) in &profile.roles {
        if let Some(node) = role.node.as_ref().filter(|node| !profile.roles.contains_key(*node)) {
            names.push((format!("roles.{key}.node: unknown role {node}"), None));
        }
        let counts = match &role.ready {
            Some(Ready::Http(http)) => &http.counts[..],
            _ => &[],
        };
        let counted = counts.iter().filter_map(|count| match &count.minimum {
            Minimum::StepsOf(role) => Some(role),
            Minimum::Number(_) => None,
        });
        let others = role.after.iter().chain(counted);
        for other in others.filter(|other| !profile.roles.contains_key(*other)) {
            names.push((format!("roles.{key}: unknown role {other}"), None));
        }
        let port = role.ready.as_ref().and_then(Ready::port);
        if let Some(port) = port.filter(|port| !role.ports.contains_key(port.as_str())) {
            names.push((format!("roles.{key}.ready: there is no port {}", port.as_str()), None));
        }
        let check = |of: &ProfileRole, origin: &Origin, name: &str, what: Option<&str>| {
            let why = known(profile, of, name, what).err()?;
            Some((format!("roles.{key}.{}: {why}", origin.input), origin.location.clone()))
        };
        let expressions =
            role.count.iter().chain(role.ports.values().filter_map(|(_, each)| each.as_ref()));
        for Traced { value, origin } in expressions {
            value.names(&mut |name, what| names.extend(check(role, origin, name, what)));
        }
        let pattern = |names: &mut Vec<_>, of: &ProfileRole, word: &Traced<Pattern>| {
            let Traced { value, origin } = word;
            value.names(&mut |name, what| names.extend(check(of, origin, name, what)));
        };
        let mut items: Vec<&Item> =
            std::iter::once(&role.command).chain(role.env.values()).collect();
        while let Some(item) = items.pop() {
            match item {
                Item::Word(word) => pattern(&mut names, role, word),
                Item::All(all) => items.extend(&**all),
                Item::If(choice) => {
                    let Traced { value, origin } = &choice.condition;
                    value.names(&mut |name, what| names.extend(check(role, origin, name, what)));
                    items.extend([&choice.then, &choice.otherwise]);
                }
                Item::Each { role: other, words } => match profile.roles.get(other) {
                    Some(other) => words.iter().for_each(|word| pattern(&mut names, other, word)),
                    None => {
                        let at = words.first().and_then(|word| word.origin.location.clone());
                        let why = format!("roles.{key}: unknown role {other}");
                        return fields.diagnostics.push(Diagnostic::error(why).at(at));
                    }
                },
            }
        }
        for text in role.config.values().flat_map(ConfigItem::patterns) {
            pattern(&mut names, role, text);
        }
        if role.config_file.is_none() && !role.config.is_empty() {
            names.push((format!("roles.{key} has `config` but no `config_file`"), None));
        }
    }
    for (message, location) in names {
        fields.diagnostics.push(Diagnostic::error(message).at(location));
    }
}

fn known(
    profile: &Profile,
    role: &ProfileRole,
    name: &str,
    of: Option<&str>,
) -> Result<(), String> {
    let Some((_, kind)) = PLACEHOLDERS.iter().find(|(known, _)| *known == name) else {
        let names = PLACEHOLDERS.iter().map(|(name, _)| *name);
        return Err(match nearest(name, names.clone(), 1)[..] {
            [near, ..] => format!("unknown placeholder {{{name}}}; did you mean {{{near}}}?"),
            _ => format!(
                "unknown placeholder {{{name}}}; known are {}",
                names.collect::<Vec<_>>().join(", ")
            ),
        });
    };
    let has_role = |role: &str| profile.roles.contains_key(role);
    let has_port = |of: &str| match of.split_once('.') {
        Some((role, port)) => {
            profile.roles.get(role).is_some_and(|role| role.ports.contains_key(port))
        }
        None => false,
    };
    let what = match (kind, of) {
        (Of::Nothing | Of::RoleOrNothing, None) => return Ok(()),
        (Of::RoleOrNothing, Some(of)) if has_role(of) => return Ok(()),
        (Of::Port, Some(of)) if has_port(of) || role.ports.contains_key(of) => return Ok(()),
        (Of::PortOfRole, Some(of)) if has_port(of) => return Ok(()),
        (Of::Size, Some(of)) if profile.sizes.contains_key(of) => return Ok(()),
        (Of::Argument, Some(_)) => return Ok(()),
        (Of::Nothing, Some(_)) => "nothing follows this name",
        (Of::RoleOrNothing, _) => "a role of the profile, or nothing, follows this name",
        (Of::Port, _) => "a port of the role, or ROLE.PORT, follows this name",
        (Of::PortOfRole, _) => "ROLE.PORT follows this name",
        (Of::Size, _) => "one of `sizes` follows this name",
        (Of::Argument, _) => "the name of an argument follows this name",
    };
    let of = of.map(|of| format!(":{of}")).unwrap_or_default();
    Err(format!("{{{name}{of}}}: {what}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::input::profile::{built_in, client, find, parse};

    #[test]
    fn all_that_is_compiled_in_refers_to_what_is_there() {
        for engine in built_in() {
            let found = find(engine, Path::new("/nowhere"), Path::new("/")).unwrap();
            let (mut fields, _) = Fields::new(&found.document);
            check(&mut fields, &parse(&found).unwrap());
            assert!(fields.diagnostics.0.is_empty(), "{}", fields.diagnostics);
        }
        let (_, clients) = client(None).unwrap();
        let known = [
            "model",
            "served_name",
            "workspace",
            "url",
            "host",
            "host_port",
            "concurrency",
            "prompts",
            "isl",
            "osl",
            "results",
            "args",
        ];
        for name in clients {
            let client = client(Some(&name)).unwrap().0.unwrap();
            client.command.words(&mut |word| {
                word.value.names(&mut |name, _| assert!(known.contains(&name), "{name}"));
            });
        }
    }
}
