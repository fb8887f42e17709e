// SPDX-License-Identifier: Apache-2.0
//! Ready, alive, dead: how the steps of a role are seen to be one of these. All of it is data; the
//! launch does the asking.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::role::{Purpose, Role, Roles};
use super::template::{Part, Template};

/// The most texts or counts that a role may have.
const MAX_ENTRIES: usize = 64;
/// The longest text that is looked for in a log, in bytes.
const MAX_TEXT: usize = 256;
/// The most misses, and the most seconds, of [`Alive`].
const MAX_MISSES: u32 = 100;
const MAX_SECONDS: u32 = 3_600;

/// How a step is seen to be ready. Addresses are on the step's first node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// It answers an HTTP request.
    Http(Http),
    /// It accepts a TCP connection.
    Tcp {
        /// The port.
        port: Template,
    },
    /// A line of its log contains one of these texts.
    Log(Vec<String>),
}

/// `GET` of a path, without a body; redirections are not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// The port.
    pub port: Template,
    /// The path, with its query: `/health`.
    pub path: String,
    /// The status that says ready. Servers that load a model mostly answer 503 until then.
    #[serde(default = "ok", skip_serializing_if = "is_ok")]
    pub status: u16,
    /// What the answer must count besides; its body is JSON then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<Count>,
}

fn ok() -> u16 {
    200
}

fn is_ok(status: &u16) -> bool {
    *status == ok()
}

/// A number in a JSON answer: a router says how many servers it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Where it is, as a JSON pointer (RFC 6901): a number, or a list, whose elements are counted.
    pub pointer: String,
    /// The fields that an element of the list must have to be counted, with their values as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub having: BTreeMap<String, String>,
    /// The least number that says ready.
    pub minimum: Minimum,
}

/// The least number of a [`Count`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Minimum {
    /// This number.
    Number(u32),
    /// As many as this role has steps.
    StepsOf(String),
}

/// How a step that is ready is watched: it is asked again as for [`Role::ready`], `misses` times in
/// `seconds`. When that many answers in a row are missing, the run fails. An answer is missing when
/// it does not come before the next question is due, or does not say ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// How many answers may not be missing in a row.
    pub misses: u32,
    /// In how many seconds that many questions are asked. Servers are slow to answer under load, so
    /// it should be many times their longest pause.
    pub seconds: u32,
}

impl Ready {
    /// The port that is asked.
    pub fn port(&self) -> Option<&Template> {
        match self {
            Self::Http(http) => Some(&http.port),
            Self::Tcp { port } => Some(port),
            Self::Log(_) => None,
        }
    }

    /// The same for one plan and one step: `fill` replaces what differs between steps.
    pub(super) fn resolve(&mut self, roles: &Roles, mut fill: impl FnMut(&mut Template)) {
        match self {
            Self::Http(http) => {
                fill(&mut http.port);
                for count in &mut http.counts {
                    if let Minimum::StepsOf(role) = &count.minimum {
                        let steps = roles.get(role).map_or(0, |role| role.count);
                        count.minimum = Minimum::Number(steps);
                    }
                }
            }
            Self::Tcp { port } => fill(port),
            Self::Log(_) => {}
        }
    }
}

/// What contradicts itself in the health of a role.
pub(super) fn contradiction(roles: &Roles, role: &Role) -> Option<&'static str> {
    let is_server = matches!(role.purpose, Purpose::Server | Purpose::Router | Purpose::Service);
    let is_text = |text: &String| {
        !text.trim().is_empty() && text.len() <= MAX_TEXT && !text.contains(char::is_control)
    };
    let are_texts = |texts: &[String]| texts.len() <= MAX_ENTRIES && texts.iter().all(is_text);
    let is_port = |port: &Template| {
        let mut parts = port.parts();
        !port.as_str().is_empty() && parts.all(|part| !matches!(part, Part::Variable(_)))
    };
    if (role.ready.is_some() || role.alive.is_some()) && !is_server {
        return Some("a role that does not serve is to be asked whether it is ready");
    }
    if role.ready.as_ref().and_then(Ready::port).is_some_and(|port| !is_port(port)) {
        return Some("a role's port is not a number");
    }
    match &role.ready {
        Some(Ready::Http(http)) => {
            let is_path = |path: &str| {
                path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
            };
            if !is_path(&http.path) || !(100..=599).contains(&http.status) {
                return Some("a role's path or status is none of HTTP");
            }
            let is_count = |count: &Count| {
                let is_known = match &count.minimum {
                    Minimum::Number(_) => true,
                    Minimum::StepsOf(role) => roles.contains_key(role),
                };
                is_known && (count.pointer.is_empty() || count.pointer.starts_with('/'))
            };
            if http.counts.len() > MAX_ENTRIES || !http.counts.iter().all(is_count) {
                return Some("a role's ready state counts what the plan does not have");
            }
        }
        Some(Ready::Log(texts)) if texts.is_empty() || !are_texts(texts) => {
            return Some("a role's text to look for in its log is empty or too long");
        }
        _ => {}
    }
    match (role.alive, &role.ready) {
        (None, _) => {}
        (Some(Alive { misses, seconds }), Some(Ready::Http(_) | Ready::Tcp { .. })) => {
            if !(1..=MAX_MISSES).contains(&misses) || !(misses..=MAX_SECONDS).contains(&seconds) {
                return Some("a role is to be asked more than once in a second, or too rarely");
            }
        }
        (Some(_), Some(Ready::Log(_)) | None) => {
            return Some("a role without an address is to be asked whether it is alive");
        }
    }
    if !are_texts(&role.fatal) {
        return Some("a role's fatal text is empty or too long");
    }
    None
}

/// Whether each role starts some time: it waits for no role that is missing or waits for it.
pub(super) fn all_start(roles: &Roles) -> bool {
    let mut started = BTreeSet::new();
    loop {
        let before = started.len();
        for (name, role) in roles {
            if role.after.iter().all(|earlier| started.contains(earlier)) {
                started.insert(name);
            }
        }
        if started.len() == before {
            return before == roles.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Two roles, the second with these further properties.
    fn roles(purpose: &str, more: Value) -> Roles {
        let role = |purpose: &str, more: Value| {
            let mut role = json!({
                "purpose": purpose, "count": 2, "numbered": true, "gpus": 0, "places": [],
                "unset": [], "env": {}, "argv": ["true"], "cwd": "/",
                "step": {"nodes": 1, "tasks": 1, "tasks_per_node": 1, "mpi": null,
                         "overlap": false, "kill_on_bad_exit": false},
                "own": {"log": "a.log"},
            });
            role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(role).unwrap()
        };
        let roles = [("CTX", role("server", json!({}))), ("X", role(purpose, more))];
        roles.map(|(name, role)| (name.to_owned(), role)).into_iter().collect()
    }

    #[test]
    fn what_contradicts_itself_is_found() {
        let of = |purpose: &str, more: Value| {
            let roles = roles(purpose, more);
            contradiction(&roles, &roles["X"])
        };
        let http = |more: Value| {
            let mut http = json!({"port": "80${.index}", "path": "/health?a=b"});
            http.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"ready": {"http": http}, "alive": {"misses": 3, "seconds": 3}})
        };
        let count = |pointer: &str, minimum: Value| {
            http(json!({"counts": [{"pointer": pointer, "minimum": minimum}]}))
        };
        let log = |text: &str| json!({"ready": {"log": [text]}, "fatal": [text]});
        let tcp = |misses: u32, seconds: u32| {
            let alive = json!({"misses": misses, "seconds": seconds});
            json!({"ready": {"tcp": {"port": "80"}}, "alive": alive})
        };
        for (purpose, more) in [
            ("server", http(json!({"status": 204}))),
            ("router", count("/a/0", json!("CTX"))),
            ("service", count("", json!(0))),
            ("server", log("Uvicorn running")),
            ("server", tcp(1, 3600)),
            ("client", json!({"fatal": ["x"], "after": ["CTX"]})),
        ] {
            assert_eq!(of(purpose, more.clone()), None, "{more}");
        }
        for (purpose, more) in [
            ("client", http(json!({}))),
            ("check", json!({"alive": {"misses": 1, "seconds": 1}})),
            ("server", http(json!({"port": ""}))),
            ("server", http(json!({"port": "$PORT"}))),
            ("server", http(json!({"path": "health"}))),
            ("server", http(json!({"path": "/a b"}))),
            ("server", http(json!({"path": "/a\r\nHost: b"}))),
            ("server", http(json!({"status": 0}))),
            ("server", count("a", json!(1))),
            ("server", count("/a", json!("GEN"))),
            ("server", log(" ")),
            ("server", log("a\nb")),
            ("server", log(&"x".repeat(257))),
            ("server", json!({"ready": {"log": []}})),
            ("server", tcp(0, 10)),
            ("server", tcp(10, 9)),
            ("server", tcp(3, 3601)),
            ("server", json!({"alive": {"misses": 1, "seconds": 1}})),
            ("server", json!({"ready": {"log": ["x"]}, "alive": {"misses": 1, "seconds": 1}})),
            ("server", json!({"fatal": [""]})),
        ] {
            assert!(of(purpose, more.clone()).is_some(), "{more}");
        }
    }

    #[test]
    fn a_role_that_would_wait_for_ever_is_found() {
        for (after, expected) in [(&["CTX"][..], true), (&["X"], false), (&["CTX", "GEN"], false)] {
            assert_eq!(
                all_start(&roles("server", json!({ "after": after }))),
                expected,
                "{after:?}"
            );
        }
    }

    #[test]
    fn counts_and_ports_are_those_of_the_plan_and_the_step() {
        let count = json!({"pointer": "/w", "having": {"t": "p"}, "minimum": "CTX"});
        let more =
            json!({"ready": {"http": {"port": "80${.index}", "path": "/", "counts": [count]}}});
        let roles = roles("router", more);
        let mut ready = roles["X"].ready.clone().unwrap();
        ready.resolve(&roles, |template| *template = Template::literal("801"));
        assert_eq!(ready.port(), Some(&Template::literal("801")));
        let Ready::Http(http) = ready else { panic!("{ready:?}") };
        assert_eq!(http.counts[0].minimum, Minimum::Number(2));
        let written = serde_json::to_value(&roles["X"].ready).unwrap();
        assert_eq!(written["http"]["counts"][0]["minimum"], "CTX");
        assert_eq!(written["http"].get("status"), None, "200 need not be written");
    }
}
