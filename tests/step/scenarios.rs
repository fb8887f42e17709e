// SPDX-License-Identifier: Apache-2.0
//! The awkward steps: what they are made of, and values that their ranks must see. The rest is
//! compared with the plan.

use std::collections::BTreeMap;
use std::fs;

use disagg::plan::{Instance, Plan, Purpose, Template, resolve};
use slurm_bed::{Servers, config_with};

use super::{Rank, Ranks, Tree};

pub struct Scenario {
    pub name: &'static str,
    /// The variables of the servers, as configurations have them.
    pub worker_env: &'static str,
    pub arguments: &'static [&'static str],
    /// A script prefix with another base command.
    pub prefix: Option<&'static str>,
    /// Variables of every rank of a server; `@R`, `@L` and `@N` stand for rank, local rank and name.
    pub seen: &'static [(&'static str, &'static str)],
    /// The end of the server's JUnit file.
    pub junit: &'static str,
    pub servers: Servers,
}

/// A generation server on two nodes, two context servers of half a node.
const SPREAD: Servers = (4, (2, 2), (1, 6));

const PLAIN: Scenario = Scenario {
    name: "",
    worker_env: "A=1",
    arguments: &[],
    prefix: None,
    seen: &[("A", "1")],
    junit: "/results-@N.xml",
    servers: SPREAD,
};

const REFERENCES: &str = r#"FROM_SET=$SET FROM_EMPTY="[$EMPTY]" FROM_UNSET="[${UNSET}]" FROM_REMOVED="[$UCX_TLS]"
    RANK=${SLURM_PROCID}.$SLURM_LOCALID HOME=$HOME/new FIRST=[$LATER] LATER=$SET SECOND=[$LATER]
    ROLE=[$DISAGG_SERVING_TYPE] PATH=/opt/$SET/bin:$PATH SET=[$SET]"#;

const TEXTS: &str = r#"QUOTES='it'\''s "x"' DOLLAR='$HOME ${HOME} $$ $(touch PWNED) `touch PWNED`'
    BETWEEN='a'\''b "$'"$SET"'\ $c' LINES='one
two
' UNICODE='Zürich → 日本' GLOB='*?[a]' TILDE='~' BACK='a\b\\' TAB='a	b' EQUAL=a=b== PERCENT=%j%t
    BLANKS='  a  b  ' NOTHING="#;

const SECRETS: &str = r#"HF_TOKEN='hf_geheim '\''"$x' MY_SECRET=$SET API_KEY="k-$SLURM_PROCID-'it's \"geheim\"'"
    CLIENT_PASSWORD=geheim${UNSET}'$y'$EMPTY"#;

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "references",
        worker_env: REFERENCES,
        seen: &[
            ("FROM_SET", "a value"),
            ("FROM_EMPTY", "[]"),
            ("FROM_UNSET", "[]"),
            ("FROM_REMOVED", "[]"),
            ("RANK", "@R.@L"),
            ("HOME", "/home of the job/new"),
            ("FIRST", "[]"),
            ("LATER", "a value"),
            ("SECOND", "[a value]"),
            ("ROLE", "[@N]"),
            ("SET", "[a value]"),
        ],
        ..PLAIN
    },
    Scenario {
        name: "texts",
        worker_env: TEXTS,
        seen: &[
            ("QUOTES", "it's \"x\""),
            ("DOLLAR", "$HOME ${HOME} $$ $(touch PWNED) `touch PWNED`"),
            ("BETWEEN", "a'b \"$a value\\ $c"),
            ("LINES", "one\ntwo\n"),
            ("UNICODE", "Zürich → 日本"),
            ("GLOB", "*?[a]"),
            ("TILDE", "~"),
            ("BACK", "a\\b\\\\"),
            ("TAB", "a\tb"),
            ("EQUAL", "a=b=="),
            ("PERCENT", "%j%t"),
            ("BLANKS", "  a  b  "),
            ("NOTHING", ""),
        ],
        ..PLAIN
    },
    Scenario {
        name: "secrets",
        worker_env: SECRETS,
        arguments: &["--site", "ucx.yaml", "--stage-name", "GB300-1", "--rules", "unified"],
        seen: &[
            ("HF_TOKEN", "hf_geheim '\"$x"),
            ("MY_SECRET", "a value"),
            ("API_KEY", "k-@R-'it's \"geheim\"'"),
            ("CLIENT_PASSWORD", "geheim$y"),
            ("SITE_TOKEN", "geheim-@L"),
            ("UCX_TLS", "tcp"),
        ],
        ..PLAIN
    },
    Scenario {
        name: "packed GPUs",
        worker_env: "A=1",
        arguments: &["--placement", "packed"],
        ..PLAIN
    },
    Scenario {
        name: "prechecks",
        worker_env: "A=$SLURM_PROCID B='$x'",
        arguments: &["--test-id", "disagg-e2e-NAME"],
        seen: &[("A", "@R"), ("B", "$x")],
        ..PLAIN
    },
    Scenario {
        name: "two words for the JUnit file",
        prefix: Some("pytest -vv --junit-xml /WORK/own.xml"),
        junit: "/own-@N.xml",
        ..PLAIN
    },
    Scenario {
        name: "--junitxml=",
        prefix: Some("C=0 pytest --junitxml=/WORK/a.xml.d/own"),
        junit: "/a.xml.d/own-@N",
        ..PLAIN
    },
    Scenario {
        name: "a JUnit file given twice",
        prefix: Some(
            "B='$x' pytest --junit-xml=/WORK/first.xml --junitxml /WORK/last.xml -k 'a b'",
        ),
        junit: "/last-@N.xml",
        ..PLAIN
    },
    Scenario {
        name: "run script, references",
        worker_env: REFERENCES,
        arguments: &["--run-sh", "run.sh", "--rules", "unified"],
        seen: &[("RANK", "@R.@L"), ("SECOND", "[a value]"), ("ROLE", "[@N]"), ("SET", "[a value]")],
        ..PLAIN
    },
    Scenario {
        name: "run script, secrets",
        worker_env: SECRETS,
        arguments: &["--run-sh", "run.sh"],
        seen: &[
            ("HF_TOKEN", "hf_geheim '\"$x"),
            ("MY_SECRET", "a value"),
            ("API_KEY", "k-@R-'it's \"geheim\"'"),
        ],
        ..PLAIN
    },
    Scenario {
        name: "run script, texts and packed GPUs",
        worker_env: TEXTS,
        arguments: &["--run-sh", "run.sh", "--placement", "packed"],
        seen: &[("LINES", "one\ntwo\n"), ("BETWEEN", "a'b \"$a value\\ $c")],
        ..PLAIN
    },
];

impl Scenario {
    pub fn plan(&self, tree: &Tree) -> Plan {
        let row =
            "ucx:\n  - gpu: GB300\n    export: 'SITE_TOKEN=geheim-$SLURM_LOCALID UCX_TLS=tcp'\n";
        fs::write(tree.path("ucx.yaml"), row).unwrap();
        let work = tree.path("work");
        fs::create_dir_all(work.join("a.xml.d")).unwrap();
        let name = format!("C {}", super::NASTY);
        let mut arguments: Vec<_> =
            self.arguments.iter().map(|argument| argument.replace("NAME", &name)).collect();
        if let Some(command) = self.prefix {
            let command = command.replace("/WORK", work.to_str().unwrap()).replace('$', "\\$");
            let prefix = format!("export pytestCommand=\"LLM_ROOT=/llm {command}\"\n");
            fs::write(tree.path("prefix.sh"), prefix).unwrap();
            arguments.extend(["--prefix-script".to_owned(), "prefix.sh".to_owned()]);
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let plan = tree.plan(&config_with(self.servers, self.worker_env), &arguments);
        let _ = std::process::Command::new("chmod").args(["-R", "a+rwX"]).arg(work).status();
        plan
    }

    /// Each rank as the plan has it, in a job with this environment; no rank is left out.
    pub fn expected(&self, plan: &Plan, job: &BTreeMap<String, String>) -> Ranks {
        let instances = plan.checks().chain(plan.instances());
        instances.flat_map(|instance| self.ranks_of(&instance, job)).collect()
    }

    fn ranks_of(&self, instance: &Instance<'_>, job: &BTreeMap<String, String>) -> Ranks {
        let spec = resolve(instance, &[]);
        let step = spec.step.clone();
        let rank = |number: u32| {
            let local = number % step.tasks_per_node;
            let mut around = job.clone();
            around.insert("SLURM_PROCID".to_owned(), number.to_string());
            around.insert("SLURM_LOCALID".to_owned(), local.to_string());
            let expand = |value: &Template| {
                value.expand(|name| around.get(name).map(String::as_str)).unwrap()
            };
            let mut env = around.clone();
            env.retain(|name, _| {
                !spec.unset.contains(&name.as_str())
                    && !spec.cleared.is_some_and(|all| all.removes(name))
            });
            for variable in &spec.set {
                env.insert(variable.name.to_owned(), expand(&variable.value));
            }
            if spec.own_gpus.is_some() {
                let gpus: Vec<_> = instance.gpus.clone().map(|gpu| gpu.to_string()).collect();
                for name in ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"] {
                    env.insert(name.to_owned(), gpus.join(","));
                }
            } else if let Some(gpus) = env.get("CUDA_VISIBLE_DEVICES").cloned() {
                env.insert("NVIDIA_VISIBLE_DEVICES".to_owned(), gpus);
            }
            let is_server = instance.role.purpose == Purpose::Server;
            for (name, value) in self.seen.iter().filter(|_| is_server) {
                let value = value.replace("@R", &number.to_string());
                let value = value.replace("@L", &local.to_string()).replace("@N", &instance.name);
                assert_eq!(
                    env.get(*name),
                    Some(&value),
                    "{}, {}: {name}",
                    self.name,
                    instance.name
                );
            }
            let junit = spec.junit.as_ref().map(expand);
            let file = self.junit.replace("@N", &instance.name);
            if instance.role.purpose != Purpose::Check {
                assert!(junit.as_ref().unwrap().ends_with(&file), "{}: {junit:?}", self.name);
            }
            let mut argv: Vec<_> = spec.arguments().map(|word| word.into_owned()).collect();
            if argv[0].ends_with("trtllm-llmapi-launch") {
                argv.remove(0);
            }
            Rank { env: compared(env), argv, cwd: spec.cwd.to_owned(), junit }
        };
        (0..step.tasks).map(|number| ((instance.name.clone(), number), rank(number))).collect()
    }
}

/// The job's environment as a map.
pub fn job(tree: &Tree) -> BTreeMap<String, String> {
    tree.environment().into_iter().collect()
}

/// The variables that every way must agree on: all but those that name a rank's place, those of the
/// shells on the way and of this test, and those that run scripts read.
pub fn compared(mut env: BTreeMap<String, String>) -> BTreeMap<String, String> {
    const OF_SHELLS: [&str; 4] = ["_", "PWD", "OLDPWD", "SHLVL"];
    const OF_THE_TEST: [&str; 3] = ["NOTES", "STEP_NAME", "RANKS"];
    env.retain(|name, _| {
        let starts = |start| name.starts_with(start);
        let of_slurm = [
            "SLURM",
            "PMI",
            "SRUN_",
            "TMPDIR",
            "HOSTNAME",
            "GPU_DEVICE_ORDINAL",
            "ROCR_",
            "ZE_AFFINITY",
            "DISAGG_RANK",
        ];
        let is_left_out = of_slurm.into_iter().any(starts) && name != "SLURM_HOSTFILE";
        let name = name.as_str();
        !is_left_out && !OF_SHELLS.contains(&name) && !OF_THE_TEST.contains(&name)
    });
    env
}

/// Compares what ranks recorded with what they should.
#[track_caller]
pub fn assert_same(way: &str, scenario: &Scenario, plan: &Plan, found: Ranks, expected: &Ranks) {
    let exports = disagg::output::exports::prefix(plan).into_iter();
    let exports = exports.chain(disagg::output::exports::exports(plan));
    let scripts: Vec<_> = exports.map(|export| export.name).collect();
    let own = ["pytestCommand", "NVIDIA_IMEX_CHANNELS"];
    let of_scripts = |name: &str| {
        own.contains(&name)
            || plan.run_token() == Some(name)
            || scripts.iter().any(|known| known == name)
    };
    let name = scenario.name;
    let steps = |ranks: &Ranks| ranks.keys().cloned().collect::<Vec<_>>();
    assert_eq!(steps(&found), steps(expected), "{name}, {way}: ranks");
    for (rank, mut found) in found {
        let expected = &expected[&rank];
        let cleared = &plan.instance(&rank.0).unwrap().role.cleared;
        let is_left = |name: &&String| cleared.as_ref().is_some_and(|all| all.removes(name));
        let left: Vec<_> = found.env.keys().filter(is_left).collect();
        assert!(left.is_empty(), "{name}, {way}, {rank:?}: {left:?}");
        found.env = compared(found.env);
        found.env.retain(|name, _| expected.env.contains_key(name) || !of_scripts(name));
        let all: std::collections::BTreeSet<_> =
            found.env.keys().chain(expected.env.keys()).collect();
        for variable in all {
            let (found, expected) = (found.env.get(variable), expected.env.get(variable));
            assert_eq!(found, expected, "{name}, {way}, {rank:?}: {variable}");
        }
        assert_eq!(found.argv, expected.argv, "{name}, {way}, {rank:?}");
        assert_eq!(found.cwd, expected.cwd, "{name}, {way}, {rank:?}");
        assert_eq!(found.junit, expected.junit, "{name}, {way}, {rank:?}");
    }
}
