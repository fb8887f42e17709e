// SPDX-License-Identifier: Apache-2.0
//! Settings from the outside: which place wins, which values are refused and how, and what reaches
//! the request.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use disagg::input::settings::{self, Options, Place, Setting, TABLE};
use disagg::input::values::Shape;
use disagg::input::{Context, request};
use disagg::plan::Request;
use disagg::plan::request::GpuRequest;

/// A directory with configurations and a settings file.
struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new(settings: &str) -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        site.write("site.yaml", settings);
        let config = "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}\n\
             worker_config:\n  gen: {tensor_parallel_size: 4}\n  ctx: {tensor_parallel_size: 4}\n";
        site.write("plain.yaml", config);
        site.write(
            "timed.yaml",
            &format!("{config}slurm: {{job_time: '3', account: c, partition: c}}\n"),
        );
        site
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn options(&self) -> Options {
        Options {
            config: "./plain.yaml".into(),
            trtllm_dir: Some("/llm".into()),
            models_dir: Some("/models".into()),
            site: Some("site.yaml".into()),
            ..Options::default()
        }
    }

    fn request(
        &self,
        options: &Options,
        variable: Option<(&str, &str)>,
    ) -> Result<Request, String> {
        let env = |name: &str| {
            variable.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let context = Context { env: &env, current_dir: self.directory.path().to_owned() };
        request::build(options, &context).map(|(request, _)| request).map_err(|e| e.to_string())
    }
}

#[test]
fn settings_are_taken_from_the_places_of_the_table_in_their_order() {
    let shown: [(&Setting, &str, [&str; 4]); 6] = [
        (&settings::TIME, "/job/time", ["1", "", "3", "4"]),
        (&settings::ACCOUNT, "/job/account", ["a", "b", "c", "d"]),
        (&settings::PARTITION, "/job/partition", ["a", "b", "c", "d"]),
        (&settings::JOB_NAME, "/job/name", ["a", "", "", "d"]),
        (&settings::MPI, "/roles/GEN/step/mpi", ["a", "b", "", "d"]),
        (&settings::PLACEMENT, "/placement", ["packed", "", "", "packed"]),
    ];
    for (setting, pointer, values) in shown {
        let places = setting.places();
        let places = places.iter().filter(|place| !matches!(place, Place::Plugstack(_)));
        let places: Vec<_> = places.collect();
        for first in 0..=places.len() {
            let site = Site::new("");
            let mut options = site.options();
            let mut variable = None;
            let mut expected = Vec::new();
            for place in &places[first..] {
                let value = match place {
                    Place::Option(_) => {
                        options.set(setting, values[0]).unwrap();
                        values[0]
                    }
                    Place::Variable(name) => {
                        variable = Some((*name, values[1]));
                        values[1]
                    }
                    Place::Config(_) => {
                        options.config = "./timed.yaml".into();
                        values[2]
                    }
                    Place::Site(key) => {
                        site.write("site.yaml", &format!("{key}: '{}'\n", values[3]));
                        values[3]
                    }
                    Place::Plugstack(_) => unreachable!(),
                };
                expected.push(value);
            }
            let request = site.request(&options, variable).unwrap();
            let plan = serde_json::to_value(disagg::plan::plan(&request).unwrap()).unwrap();
            let default = setting.default.filter(|default| *default != "Slurm's");
            assert_eq!(
                plan.pointer(pointer).and_then(serde_json::Value::as_str),
                expected.first().copied().or(default),
                "{}: {:?}",
                setting.name,
                &places[first..]
            );
        }
    }
}

#[test]
fn an_empty_value_and_a_control_character_are_refused_by_the_name_of_the_option_or_key() {
    for setting in TABLE.iter().filter(|setting| (setting.values)().is_empty()) {
        let may_be_empty = ["stage_name", "cluster_name"].contains(&setting.name);
        for (value, what) in [("", "must not be empty"), ("a\nb", "must be one line")] {
            let site = Site::new("");
            if let Some(option) = setting.option {
                let mut options = site.options();
                options.set(setting, value).unwrap();
                match site.request(&options, None) {
                    Ok(_) => assert!(may_be_empty && value.is_empty(), "{option}={value:?}"),
                    Err(message) if may_be_empty && value.is_empty() => panic!("{message}"),
                    Err(message) => {
                        assert!(message.contains(&format!("error: {option} {what}")), "{message}");
                    }
                }
            }
            if let (Some(key), true) = (setting.key, setting.name != settings::UCX.name) {
                site.write("site.yaml", &format!("{key}: {value:?}\n"));
                let found = site.request(&site.options(), None);
                if may_be_empty && value.is_empty() {
                    assert!(found.is_ok(), "{key}");
                    continue;
                }
                let message = found.unwrap_err();
                let place = format!("site.yaml:1:{}: error: {key} {what}", key.len() + 3);
                assert!(message.contains(&place), "{place}: {message}");
            }
        }
    }
}

#[test]
fn what_ordinary_clusters_need_reaches_the_request_from_options_and_site_yaml() {
    let site = Site::new(
        "qos: low\nconstraint: gb200&nvme\nreservation: tests\nexclusive: true\nmem: '0'\n\
         gpu_request: gres\nsbatch_args: [--mail-type=END]\nsrun_args: --cpu-bind=none\n",
    );
    let job = site.request(&site.options(), None).unwrap().job;
    assert_eq!(job.qos.unwrap().value, "low");
    assert_eq!(job.constraint.unwrap().value, "gb200&nvme");
    assert_eq!(job.reservation.unwrap().value, "tests");
    assert!(job.exclusive.unwrap().value);
    assert_eq!(job.mem.unwrap().value, "0");
    assert_eq!(job.gpu_request.value, GpuRequest::Gres);
    assert!(job.sbatch_args[0].origin.location.is_some());
    assert_eq!(job.srun_args[0].value, "--cpu-bind=none");

    let mut options = site.options();
    for (setting, value) in [
        (&settings::QOS, "high"),
        (&settings::EXCLUSIVE, "false"),
        (&settings::GPU_REQUEST, "total"),
        (&settings::SBATCH_ARGS, "--comment"),
        (&settings::SBATCH_ARGS, "two words"),
        (&settings::SBATCH_ARGS, "-c 4"),
    ] {
        options.set(setting, value).unwrap();
    }
    let job = site.request(&options, None).unwrap().job;
    assert_eq!(job.qos.as_ref().unwrap().origin.to_string(), "--qos");
    assert!(!job.exclusive.unwrap().value);
    assert_eq!(job.gpu_request.value, GpuRequest::Total);
    let words: Vec<_> = job.sbatch_args.iter().map(|word| word.value.as_str()).collect();
    assert_eq!(words, ["--mail-type=END", "--comment=two words", "-c4"]);

    let plain = Site::new("").options();
    let job = Site::new("").request(&plain, None).unwrap().job;
    assert_eq!(job.gpu_request.value, GpuRequest::PerNode);
    assert!(job.qos.is_none() && job.exclusive.is_none() && job.sbatch_args.is_empty());
}

#[test]
fn an_argument_that_contradicts_the_plan_is_refused_at_its_place() {
    let site = Site::new("account: llm\nsbatch_args: [--nodes=3, -Aother]\n");
    let mut options = site.options();
    options.set(&settings::SRUN_ARGS, "--mpi=none").unwrap();
    let message = site.request(&options, None).unwrap_err();
    for part in [
        "site.yaml:2:14: error: sbatch_args: --nodes=3 contradicts the plan, which decides --nodes",
        "error: sbatch_args: -Aother (--account) contradicts the plan, which decides --account",
        "help: set --account, CLUSTER_ACCOUNT (environment) or account (site.yaml)",
        "error: --srun-arg: --mpi=none contradicts the plan, which decides --mpi",
    ] {
        assert!(message.contains(part), "{part}\n---\n{message}");
    }
}

#[test]
fn closed_sets_name_their_values_and_their_defaults_are_among_them() {
    for setting in TABLE.iter().filter(|setting| setting.shape == Shape::One) {
        let values = (setting.values)();
        if values.is_empty() || setting.name == settings::RULES.name {
            continue;
        }
        assert!(values.contains(&setting.default.unwrap()), "{}", setting.name);
        let message = Options::default().set(setting, "x").unwrap_err();
        assert_eq!(message, format!("must be one of: {}", values.join(", ")));
    }
}
