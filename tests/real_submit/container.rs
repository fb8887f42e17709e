// SPDX-License-Identifier: Apache-2.0
//! Jobs in containers, with a container plugin that behaves as pyxis does.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use slurm_bed::{Containers, Options, Output, contains, executable, public_directory};
use tempfile::TempDir;

use crate::site::{KILLED, LIMIT, STANDIN, STEPS, Site, json, path, wait_for, with_plugins};

/// The image has other values of two variables than the plan, and a PATH of its own.
const ENVIRONMENT: &str = "PATH=/image/bin:/usr/bin:/bin\nUCX_TLS=image\nTLLM_LOG_LEVEL=image\n";
const PYTEST: &str = "#!/bin/sh
[ -z \"$DISAGG_SERVING_TYPE\" ] || echo \"image: $DISAGG_SERVING_TYPE $TLLM_LOG_LEVEL ${UCX_TLS-unset}\"
exec /usr/bin/python3 -m pytest \"$@\"\n";
/// What rank 0 of each server has to say of that.
const RANKS: [&str; 2] = ["image: CTX_0 INFO unset\n", "image: GEN_0 INFO unset\n"];

/// What a rank's log says of a process that held its output.
const LEFT: &str = " has ended; killing what it left: ";

/// A cluster with the container plugin before this project's, except for its last node, which has none.
struct Place {
    site: Site,
    containers: Containers,
    files: TempDir,
}

impl Place {
    fn new(nodes: u32) -> Self {
        let files = public_directory();
        let containers = Containers::new(files.path(), ENVIRONMENT, ("pytest", PYTEST));
        let options = Options::nodes(nodes + 1).spank(&containers.plugstack_line());
        let options = options.bare_node(&format!("node{}", nodes + 1));
        let site = Site::with(with_plugins(files.path(), options));
        // Mounted, unlike /tmp.
        let models = files.path().join("models");
        fs::create_dir(&models).unwrap();
        let settings = format!("trtllm_dir: {STANDIN}/tree\nmodels_dir: {}\n", models.display());
        fs::write(files.path().join("site.yaml"), settings).unwrap();
        Self { site, containers, files }
    }

    fn workspace(&self, way: &str) -> PathBuf {
        match way {
            "sbatch" => self.site.workspace_of_sbatch(),
            launcher => self.site.cluster.work().join(launcher),
        }
    }

    fn submit(&self, launcher: &str, arguments: &[&str]) -> Command {
        let config = format!("{STANDIN}/configs/standin_3nodes.yaml");
        let settings = format!("{}/site.yaml", self.files.path().display());
        let image = self.containers.image();
        let own = ["submit", "--force", "--config-file", &config, "--site", &settings];
        let container = ["--container-image", &image, "--launcher", launcher];
        // It would put the batch script into a container.
        let shell = ["PYXIS_CONTAINER_IMAGE=/nowhere"];
        let mut submit = self.site.command(&shell, &[&own[..], &container, arguments].concat());
        submit.arg("--workspace").arg(self.workspace(launcher));
        submit
    }

    /// A script's steps in the image, which a step before them unpacks.
    fn sbatch(&self, options: &[&str], script: &str) -> Output {
        let (image, workspace) = (self.containers.image(), self.site.workspace_of_sbatch());
        let work = workspace.display();
        let script = format!(
            "mkdir -p {work}
             step='--container-image={image} --container-mounts={work}:{work},{STANDIN}:{STANDIN}'
             step=\"$step --container-name=$SLURM_JOB_ID\"
             srun --ntasks=3 --ntasks-per-node=1 $step true || exit
             {script}"
        );
        self.site.sbatch(&[], options, &script)
    }

    /// A configuration whose plan is too long for a variable.
    fn long_config(&self) -> String {
        let text = fs::read_to_string(format!("{STANDIN}/configs/standin_3nodes.yaml")).unwrap();
        let long: String = (0..800).map(|i| format!("LONG_{i}={} ", "x".repeat(80))).collect();
        let path = self.site.cluster.work().join("standin_3nodes.yaml");
        fs::write(
            &path,
            text.replace("TLLM_LOG_LEVEL=INFO", &format!("{long}TLLM_LOG_LEVEL=INFO")),
        )
        .unwrap();
        format!("--disagg-config={}", path.display())
    }

    /// What all steps of a run print, and its exit status.
    fn run(&self, way: &str) -> (Option<i32>, String) {
        if way == "sbatch" {
            let output = self.sbatch(&[], STEPS);
            return (output.code, output.stderr);
        }
        let output = Output::of(&mut self.submit(way, &[]));
        (output.code, output.stdout + &output.stderr + &self.text(way))
    }

    /// What all steps of a launcher's run have printed.
    fn text(&self, launcher: &str) -> String {
        let files = fs::read_dir(self.workspace(launcher)).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
        logs.map(|path| fs::read_to_string(path).unwrap()).collect()
    }
}

#[test]
fn an_image_is_unpacked_once_on_each_node_and_its_environment_yields_to_the_plan() {
    // TIMES=20 for the proof that it is no luck.
    let times = std::env::var("TIMES").map_or(2, |times| times.parse().unwrap());
    let place = Place::new(9);
    place.containers.slow_down(1);
    std::thread::scope(|scope| {
        for way in ["native", "bash", "sbatch"] {
            let place = &place;
            scope.spawn(move || {
                for time in 0..times {
                    let (code, text) = place.run(way);
                    assert_eq!(code, Some(0), "{way} {time}: {text}");
                    RANKS.iter().for_each(|said| contains(&text, said));
                }
            });
        }
    });
    let unpacked = place.containers.unpacked();
    let mut distinct = unpacked.clone();
    distinct.dedup();
    assert_eq!((unpacked.len(), distinct.len()), (3 * 3 * times, 3 * 3 * times), "{unpacked:?}");
}

#[test]
fn a_job_that_is_requeued_while_its_image_is_unpacked_unpacks_it_again() {
    let place = Place::new(6);
    let cluster = &place.site.cluster;
    place.containers.slow_down(60);
    let jobs = ["native", "bash"].map(|launcher| {
        let output = Output::of(&mut place.submit(launcher, &["--no-wait", "--json"]));
        let id = json(&output)["jobs"][0]["job_id"].as_u64().unwrap();
        (launcher, u32::try_from(id).unwrap())
    });
    for (_, id) in jobs {
        let place = &place;
        let partly =
            |node| place.containers.of_node(node).join(format!("pyxis_disagg_test_{id}_/etc"));
        wait_for(|| ["node1", "node4"].into_iter().any(|node| partly(node).exists()));
        cluster.run(["scontrol", "requeue", &id.to_string()]).ok();
    }
    place.containers.slow_down(0);
    for (_, id) in jobs {
        cluster.wait_until(id, LIMIT, |job| job.field("Restarts") == "1");
        // A requeued job is held back for two minutes; the bed's credentials expire within seconds.
        let job = format!("JobId={id}");
        let _ = cluster.run(["scontrol", "update", &job, "StartTime=now+8"]);
    }
    for (launcher, id) in jobs {
        let job = cluster.wait_job(id, LIMIT);
        let text = place.text(launcher);
        assert_eq!(job.state(), "COMPLETED", "{launcher}: {text}");
        RANKS.iter().for_each(|said| contains(&text, said));
    }
    let names: Vec<_> = place.containers.unpacked().into_iter().map(|(_, name)| name).collect();
    for (_, id) in jobs {
        let again = format!("pyxis_disagg_test_{id}_1");
        assert_eq!(names.iter().filter(|name| **name == again).count(), 3, "{names:?}");
    }
}

#[test]
fn a_long_plan_is_read_behind_the_container_plugin_and_no_step_runs_on_the_host() {
    let place = Place::new(4);
    let long = place.long_config();
    let output = place.sbatch(&[&long], STEPS);
    output.expect(0).shows(&RANKS);
    assert_eq!(
        fs::read_dir(place.site.cluster.work())
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".disagg-plan-")
            })
            .count(),
        1
    );

    let script = place.files.path().join("models/killed.sh");
    executable(&script, KILLED);
    for launcher in ["native", "bash"] {
        let run = ["--run-sh", path(&script)];
        Output::of(&mut place.submit(launcher, &run)).expect(1);
        contains(&place.text(launcher), LEFT);
    }
    let step = "srun --disagg-role=CTX_0 $step bash -c '(trap \"\" TERM; exec sleep 60) & sleep 1; kill -9 $$'";
    assert_ne!(place.sbatch(&[], step).shows(&[LEFT]).code, Some(0));

    let image = place.containers.image();
    let said = format!("the container image {image} was not unpacked");
    fs::rename(&image, format!("{image}.away")).unwrap();
    for launcher in ["native", "bash"] {
        Output::of(&mut place.submit(launcher, &["--no-preflight"])).expect(1).shows(&[&said]);
    }
    place.sbatch(&[], "echo it runs").expect(1).shows(&[&format!("image: {image}")]);
    fs::rename(format!("{image}.away"), &image).unwrap();

    // The last node has no plugin.
    let set = |node, state| {
        let node = format!("NodeName={node}");
        place.site.cluster.run(["scontrol", "update", &node, state, "Reason=test"]).ok();
    };
    set("node[1-2]", "State=DRAIN");
    for way in ["native", "bash"] {
        let (code, text) = place.run(way);
        assert_ne!(code, Some(0), "{way}: {text}");
        contains(&text, "node5 runs the step outside of the container");
        assert!(!text.contains(RANKS[0]), "{way}: {text}");
    }
    let step = |role| {
        format!("srun --disagg-role={role} $step bash -c 'echo it runs; eval \"$pytestCommand\"'")
    };
    let output = place.sbatch(&[], &step("CTX_0"));
    output
        .expect(1)
        .shows(&["node5 lacks spank_disagg.so: nothing shows that the step is in its container"]);
    assert!(!output.stderr.contains(RANKS[0]), "{}", output.stderr);

    set("node[1-2]", "State=RESUME");
    set("node5", "State=DRAIN");
    let plugins = place.site.cluster.dir().join("etc/plugstack.conf");
    let lines = fs::read_to_string(&plugins).unwrap();
    let own = lines.lines().filter(|line| line.contains("spank_disagg.so"));
    fs::write(&plugins, own.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let of_variable =
        step("GEN_0").replace("$step", "").replace("srun", "PYXIS_CONTAINER_IMAGE=x srun");
    let output = place.site.sbatch(&[], &[], &of_variable);
    output.expect(1).shows(&["GEN_0 would not run in its container on node1"]);
    assert!(!output.stderr.contains("it runs"), "{}", output.stderr);
}

#[test]
fn the_container_plugin_may_come_behind_the_projects_own() {
    let place = Place::new(3);
    let plugins = place.site.cluster.dir().join("etc/plugstack.conf");
    let lines = fs::read_to_string(&plugins).unwrap();
    let reversed: String = lines.lines().rev().map(|line| format!("{line}\n")).collect();
    fs::write(&plugins, reversed).unwrap();
    for way in ["native", "bash", "sbatch"] {
        let (code, text) = place.run(way);
        assert_eq!(code, Some(0), "{way}: {text}");
        RANKS.iter().for_each(|said| contains(&text, said));
    }
    let long = place.long_config();
    let step = "srun --disagg-role=CTX_0 $step bash -c 'echo \"$TLLM_LOG_LEVEL $PATH $1\"' x 'a  b'
        srun --disagg-role=CTX_0 $step ./nowhere
        srun --disagg-role=CTX_0 $step bash -c '(trap \"\" TERM; exec sleep 60) & sleep 1; kill -9 $$'";
    let output = place.sbatch(&[&long], step);
    output.shows(&["INFO /image/bin:/usr/bin:/bin a  b\n", "nowhere: not found", LEFT]);
    let script = place.files.path().join("models/roles.conf");
    fs::write(&script, "0-3 sh -c 'echo it runs'\n").unwrap();
    let step = format!("srun --multi-prog --disagg-role=CTX_0 $step {}", path(&script));
    let output = place.sbatch(&[], &step);
    assert_ne!(output.code, Some(0), "{}", output.stderr);
    output.shows(&["CTX_0 cannot be started in its container: with --multi-prog"]);
    assert!(!output.stderr.contains("it runs"), "{}", output.stderr);
}
