// SPDX-License-Identifier: Apache-2.0
//! What another user of the cluster, without privileges, can see of a job and do to it. Foreign
//! workspaces are in `submit_report.rs`, hand-written demands in the controller plugin's tests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use slurm_bed::{Cluster, Options, TEST_USER, built};
use tempfile::TempDir;

const ATTACKER: &str = "nobody";

const CONFIG: &str = "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}
environment:
  worker_env_var: 'HF_TOKEN=hf_private HUGGING_FACE_HUB_TOKEN=$HF_TOKEN LOGIN=hf_private URL=u:$LOGIN@h'
worker_config:
  gen: {tensor_parallel_size: 4}
  ctx: {tensor_parallel_size: 4}
";

/// A cluster with both plugins and a test suite whose servers only wait.
struct Site {
    cluster: Cluster,
    // Deleted after the cluster is down.
    _plugins: TempDir,
}

impl Site {
    fn new() -> Self {
        let readable = fs::Permissions::from_mode(0o755);
        let plugins = tempfile::Builder::new().permissions(readable).tempdir().unwrap();
        let place = plugins.path();
        for name in ["spank_disagg.so", "job_submit_disagg.so", "slurm-disagg"] {
            fs::copy(built(name), place.join(name)).unwrap();
        }
        let settings = format!(
            "trtllm_dir: {}/tree\nmodels_dir: /models\nmpi_type: none\nsecrets: [LOGIN]\n",
            place.display()
        );
        fs::write(place.join("site.yaml"), settings).unwrap();
        let script = |path: &str, text: &str| {
            let path = place.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        script("tree/tests/integration/defs/test.py", "");
        script("tree/tensorrt_llm/llmapi/trtllm-llmapi-launch", "#!/bin/bash\nexec \"$@\"\n");
        script(
            "bin/pytest",
            "#!/bin/bash\n[[ $URL == u:hf_private@h ]] && touch ~/secret.seen\nsleep 2\n",
        );
        let line = format!("required {0}/spank_disagg.so site={0}/site.yaml", place.display());
        let cluster = Cluster::start(
            &Options::nodes(2)
                .spank(&line)
                .job_submit("disagg")
                .plugin_dir(place)
                .conf("SlurmctldDebug=verbose")
                .etc_file("disagg.conf", "allowed_accounts=llm"),
        );
        let site = Self { cluster, _plugins: plugins };
        fs::write(site.path("config.yaml"), CONFIG).unwrap();
        site.victim("cp config.yaml ~/ && cd && chmod 600 config.yaml");
        fs::remove_file(site.path("config.yaml")).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cluster.work().join(name)
    }

    fn plugins(&self) -> &Path {
        self._plugins.path()
    }

    /// What a user prints with a command of bash.
    fn by(&self, user: &str, command: &str) -> String {
        let path = format!("export PATH={}/bin:$PATH; {command}", self.plugins().display());
        self.cluster.run_as(user, ["timeout", "60", "bash", "-c", &path]).checked()
    }

    fn victim(&self, command: &str) -> String {
        self.by(TEST_USER, command)
    }

    /// All that the attacker can see of processes and jobs.
    fn seen(&self) -> String {
        self.by(
            ATTACKER,
            "ps -eo args; cat /proc/[0-9]*/{cmdline,environ} 2>/dev/null | tr '\\0' '\\n'
             scontrol show --details job; scontrol show step; squeue -O ALL; true",
        )
    }

    /// All that the attacker can read of files.
    fn read(&self, directory: &Path) -> String {
        let read =
            format!("find {} -type f -exec cat {{}} + 2>/dev/null; true", directory.display());
        self.by(ATTACKER, &read)
    }
}

#[test]
fn nobody_else_sees_a_secret_while_its_job_runs_or_afterwards() {
    let site = Site::new();
    let tool = site.plugins().join("slurm-disagg");
    let (tool, settings) = (tool.display(), site.plugins().join("site.yaml"));
    let submit = |launcher: &str| {
        format!(
            "{tool} submit --no-preflight --config-file config.yaml --site {} --account llm --workspace {launcher} \
             --launcher {launcher} --no-wait",
            settings.display()
        )
    };
    let native = "sbatch -A llm --parsable --output=plugin.log --disagg-explain --disagg-config=config.yaml \
        --wrap=\"for role in GEN_0 CTX_0; do srun --disagg-role=\\$role bash -c 'eval \\\"\\$pytestCommand\\\"' & done; wait\"";
    for (way, command) in
        [("plugin", native), ("native", &submit("native")), ("bash", &submit("bash"))]
    {
        let said = site.victim(&format!(
            "umask 022; cd; rm -f secret.seen; {command} 2>&1; squeue --noheader --format=%A >id"
        ));
        assert!(!said.contains("hf_private"), "{way}: {said}");
        let id = site.victim("cat ~/id").trim().parse().unwrap_or_else(|_| panic!("{way}: {said}"));
        let mut looked = 0;
        while !site.cluster.job(id).has_ended() {
            let seen = site.seen();
            assert!(!seen.contains("hf_private"), "{way}: {seen}");
            looked += 1;
            assert!(looked < 200, "{way}: {}", site.cluster.evidence());
        }
        assert!(looked > 1, "{way} ended too soon: {said}");
        assert_eq!(site.victim("ls ~/secret.seen | wc -l").trim(), "1", "{way}: no server had it");
        let home = PathBuf::from(site.victim("cd; pwd").trim());
        for directory in [&home, &site.cluster.work()] {
            assert!(!site.read(directory).contains("hf_private"), "{way}: {}", directory.display());
        }
        for daemon in ["slurmctld", "slurmd.node1", "slurmd.node2"] {
            assert!(!site.cluster.log(daemon).contains("hf_private"), "{way}: {daemon}");
        }
    }
}

#[test]
fn what_others_leave_in_the_place_of_a_users_files_is_neither_used_nor_waited_for() {
    let site = Site::new();
    // No other test has this user, and all have the machine's /tmp.
    let victim = "games";
    let place = format!("/tmp/slurm-disagg-{}", site.by(victim, "id -u").trim());
    fs::write(site.path("config.yaml"), CONFIG).unwrap();
    let target = site.path("target");
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o777)).unwrap();
    let traps = [
        format!("ln -s {} {place}", target.display()),
        format!("mkdir -m 777 {place}"),
        format!("mkfifo {place}"),
        format!("touch {place}"),
    ];
    for trap in traps {
        site.by(ATTACKER, &trap);
        let output = site.by(
            victim,
            &format!(
                "sbatch -A llm --parsable --wait --output=out --disagg-config=config.yaml \
             --wrap='ls -ld {place}; srun --disagg-role=GEN_0 true; echo status $?'; cat out"
            ),
        );
        assert!(output.contains("status 0"), "{trap}: {output}");
        assert!(output.contains(" nobody nogroup "), "the trap is there: {output}");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{trap}");
        site.by(ATTACKER, &format!("rm -rf {place}"));
    }
}

#[test]
fn no_name_begins_a_line_in_the_controllers_log() {
    let site = Site::new();
    for name in ["x\nslurmctld: fatal: forged", "x\r\nslurmctld: fatal: forged", "x\u{1b}[2Jforged"]
    {
        let account = format!("--account={name}");
        let submit = ["sbatch", &account, "--disagg-config=config.yaml", "--wrap=true"];
        let home = site.victim("cd; pwd");
        let mut command = site.cluster.command_as(TEST_USER, "env");
        let output = command.arg("-C").arg(home.trim()).args(submit).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("account x\\x"), "{said}");
        assert!(!said.contains('\u{1b}') && !said.contains("\nslurmctld:"), "{said}");
    }
    let log = site.cluster.log("slurmctld");
    assert!(log.contains("account x\\x0aslurmctld: fatal: forged may not run"), "{log}");
    let forged =
        |line: &str| line.starts_with("slurmctld: fatal") || line.contains("] fatal: forged");
    assert!(!log.lines().any(forged) && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn submissions_of_one_long_plan_at_once_all_run() {
    let site = Site::new();
    let long: String = (0..900).map(|i| format!("VARIABLE_{i}={} ", "x".repeat(60))).collect();
    fs::write(site.path("long"), CONFIG.replace("HF_TOKEN=", &format!("{long}HF_TOKEN="))).unwrap();
    site.victim(&format!("cp {} ~/long.yaml", site.path("long").display()));
    let said = site.victim(
        "cd; seq 120 | xargs -P 8 -I{} sbatch -A llm -H --parsable --disagg-config=long.yaml --wrap=true \
         2>/dev/null | wc -l; ls -A | grep -c disagg-plan; stat -c %a .disagg-plan-*",
    );
    assert_eq!(said, "120\n1\n600\n");
}
