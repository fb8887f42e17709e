# SPDX-License-Identifier: Apache-2.0
"""The stand-in's own test: its roles as local processes on loopback, without Slurm. Run: bin/pytest test_standin.py"""

import contextlib
import csv
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TREE = HERE / "tree"
DEFS = TREE / "tests/integration/defs"
LAUNCHER = str(TREE / "tensorrt_llm/llmapi/trtllm-llmapi-launch")
FOREIGN = ("SLURM", "PMI", "OMPI", "STANDIN", "DISAGG")
KEPT = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}

sys.dont_write_bytecode = True
sys.path.insert(0, str(DEFS))
from standin import expected, faults  # noqa: E402


class Job:
    """The processes of one test in one workspace; ends them all."""

    def __init__(self, workspace):
        self.workspace, self.processes = workspace, {}
        self.settings = {"STANDIN_START_TIMEOUT": "60", "STANDIN_REQUEST_TIMEOUT": "60"}

    def spawn(self, name, argv, role, **env):
        log = (self.workspace / f"{name}.log").open("wb")
        path = f"{HERE / 'bin'}:{KEPT['PATH']}"
        env = KEPT | self.settings | {"PATH": path, "DISAGG_SERVING_TYPE": role, "LLM_ROOT": str(TREE)} | env
        self.processes[name] = subprocess.Popen(
            argv, cwd=DEFS, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def base_command(self, role, test_id):
        w = self.workspace
        return f"pytest -vv --timeout-method=thread --timeout=3600 --rootdir {DEFS} --test-prefix=disagg_upload --output-dir={w}/".split() + [
            f"--csv={w}/report.csv", "-o", "junit_logging=out-err", f"--junit-xml={w}/results-{role}.xml",
            f"perf/test_perf_sanity.py::test_e2e[{test_id}]",
        ]  # fmt: skip

    def role(self, role, test_id, ranks=0):
        """Starts a role, under the launcher when ranks are given: as role.0, role.1, …"""
        command = self.base_command(role, test_id)
        if not ranks:
            return self.spawn(role, command, role)
        return self.ranks(role, command, ranks)

    def ranks(self, role, command, ranks):
        for rank in range(ranks):
            self.spawn(f"{role}.{rank}", [LAUNCHER, *command], role, SLURM_PROCID=str(rank), SLURM_STEP_NUM_TASKS=str(ranks))

    def whole(self, config="standin_3nodes", ctx=1, gen=1, ranks=2, fault=None):
        """Starts a test with all its roles; servers of several ranks are started by the launcher."""
        self.settings |= {"STANDIN_FAULT": fault} if fault else {}
        test_id = f"disagg_upload-{config}"
        for role in [f"GEN_{i}" for i in range(gen)] + [f"CTX_{i}" for i in range(ctx)]:
            self.role(role, test_id, ranks)
        self.role("DISAGG_SERVER", test_id)
        self.role("BENCHMARK", test_id)

    def end(self, name, seconds=60):
        """The status of a process that is to end by itself, negative for a signal."""
        return self.processes[name].wait(seconds)

    def stop(self):
        """SIGTERM for all that run; returns the status of each."""
        for process in self.processes.values():
            process.terminate()
        return {name: self.end(name) for name in self.processes}

    def log(self, name):
        return (self.workspace / f"{name}.log").read_text()

    def wait_for_line(self, name, text, seconds=60):
        deadline = time.monotonic() + seconds
        while text not in self.log(name):
            assert time.monotonic() < deadline, f"no '{text}' in {name}: {self.log(name)}"
            time.sleep(0.05)

    def address(self, role):
        path = self.workspace / f"addresses/{role}.json"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def job(tmp_path):
    job = Job(tmp_path)
    yield job
    for process in job.processes.values():
        # The whole group, as Slurm ends a whole step: a launcher killed alone would leave its command behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def junit(job, role):
    suite = ElementTree.parse(job.workspace / f"results-{role}.xml").getroot()[0]
    return suite, suite.find("testcase").get("classname"), suite.find("testcase").get("name")


def test_all_roles_pass_and_the_benchmark_reports(job):
    job.whole(ranks=4)
    assert job.end("BENCHMARK") == 0
    assert job.address("GEN_0") | {"port": 0, "pid": 0, "host": ""} == {
        "role": "GEN_0", "host": "", "port": 0, "pid": 0, "ranks": 4, "barrier": "file",
    }  # fmt: skip
    assert set(job.stop().values()) == {0}
    (row,) = csv.DictReader((job.workspace / "report.csv").open())
    assert (row["test"], row["requests"], row["output_tokens"]) == ("disagg_upload-standin_3nodes", "8", "128")
    for role in ("GEN_0", "CTX_0", "DISAGG_SERVER", "BENCHMARK"):
        suite, module, name = junit(job, role)
        assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "0")
        assert (module, name) == ("disagg_upload.perf.test_perf_sanity", "test_e2e[disagg_upload-standin_3nodes]")
    assert "ends after 8 requests" in job.log("GEN_0.0")
    assert list((job.workspace / "addresses").iterdir()) == []


def test_requests_go_round_several_servers(job):
    (job.workspace / "node_info.json").write_text('{"num_ctx_servers": 3, "num_gen_servers": 2}')
    job.whole(config="known_to_node_info_only", ctx=3, gen=2, ranks=0)
    assert job.end("BENCHMARK") == 0
    assert set(job.stop().values()) == {0}
    assert [job.log(f"CTX_{i}").count("ends after 3 requests") for i in range(3)] == [1, 1, 0]
    assert [job.log(f"GEN_{i}").count("ends after 4 requests") for i in range(2)] == [1, 1]


def test_gen_only_needs_no_ctx_server(job):
    job.whole(config="standin_one_gpu", ctx=0, ranks=0)
    assert job.end("BENCHMARK") == 0
    assert set(job.stop().values()) == {0}


def test_an_aggregated_test_serves_and_measures_in_one_step(job):
    job.role("AGGREGATED", "aggr_upload-some_config-some_server", ranks=2)
    assert [job.end(f"AGGREGATED.{rank}") for rank in range(2)] == [0, 0]
    assert "some_config" in (job.workspace / "report.csv").read_text()


def test_a_test_list_and_the_ci_options_stand_in_for_a_test_on_the_command_line(job):
    w = job.workspace
    (w / "list.txt").write_text("perf/test_perf_sanity.py::test_e2e[aggr_upload-a b-c] TIMEOUT (90)\nother.py::test_x[y]\n")
    options = f"--cov=examples/ --cov-report= --cov-config {w}/.coveragerc --periodic-junit --periodic-junit-xmlpath {w}/results-CI.xml"
    more = "--periodic-batch-size=1 --periodic-save-unfinished-test --splits 1 --group 1"
    command = f"pytest --rootdir {DEFS} --test-list={w}/list.txt --output-dir={w}/ --csv={w}/report.csv {options} {more}".split()
    job.spawn("AGGREGATED", command, "AGGREGATED")
    assert job.end("AGGREGATED") == 0, job.log("AGGREGATED")
    assert junit(job, "CI")[2] == "test_e2e[aggr_upload-a b-c]"


def test_a_yaml_test_list_can_be_given_too_and_split(job):
    test_list = TREE / "tests/integration/test_lists/test-db/standin.yml"
    command = f"pytest --rootdir {DEFS} --collect-only -q --test-list={test_list} --splits 2 --group 2".split()
    job.spawn("AGGREGATED", command, "AGGREGATED")
    assert job.end("AGGREGATED") == 0
    assert [line for line in job.log("AGGREGATED").splitlines() if "::" in line] == [
        "perf/test_perf_sanity.py::test_e2e[disagg_upload-e2e-standin_2gen_3ctx]"
    ]


def test_health_tells_who_answers(job):
    job.role("GEN_0", "disagg_upload-standin_3nodes")
    job.wait_for_line("GEN_0", "ready at")
    connection = http.client.HTTPConnection(job.address("GEN_0")["host"], job.address("GEN_0")["port"])
    connection.request("GET", "/health")
    assert json.load(connection.getresponse()) == {"role": "GEN_0", "ranks": 1, "barrier": "alone"}


def test_an_earlier_runs_addresses_are_not_believed(job):
    job.role("GEN_0", "disagg_upload-standin_one_gpu")
    job.wait_for_line("GEN_0", "ready at")
    stranger = job.address("GEN_0")
    stale = {"GEN_0.ranks": [stranger["host"], 1], "DISAGG_SERVER": stranger | {"role": "DISAGG_SERVER"}, "GEN_0": stranger | {"port": 1}}
    for name, record in stale.items():
        (job.workspace / f"addresses/{name}.json").write_text(json.dumps(record))
    job.whole(config="standin_one_gpu", ctx=0, ranks=2)
    assert job.end("BENCHMARK") == 0, job.log("BENCHMARK")


def test_each_rank_ends_with_the_commands_status(job):
    job.ranks("GEN_0", ["sh", "-c", "exit 7", "--output-dir=" + str(job.workspace)], 3)
    assert [job.end(f"GEN_0.{rank}") for rank in range(3)] == [7, 7, 7]


def test_a_command_killed_by_a_signal_gives_128_and_the_signal(job):
    job.ranks("GEN_0", ["sh", "-c", "kill -9 $$", "--output-dir=" + str(job.workspace)], 2)
    assert [job.end(f"GEN_0.{rank}") for rank in range(2)] == [137, 137]


def test_a_command_that_does_not_exist_gives_127_on_each_rank(job):
    job.ranks("GEN_0", ["no-such-command", "--output-dir=" + str(job.workspace)], 2)
    assert [job.end(f"GEN_0.{rank}") for rank in range(2)] == [127, 127]
    assert "no-such-command: No such file" in job.log("GEN_0.0")


def test_only_rank_0_runs_the_command_and_not_as_a_rank(job):
    job.ranks("GEN_0", ["sh", "-c", "env --null", f"--output-dir={job.workspace}"], 2)
    assert [job.end(f"GEN_0.{rank}") for rank in range(2)] == [0, 0]
    environment = dict(item.split("=", 1) for item in job.log("GEN_0.0").split("\0") if item)
    assert environment["tllm_mpi_size"] == "2"
    assert not [name for name in environment if name.startswith("SLURM_")]
    assert job.log("GEN_0.1") == ""


def test_ranks_that_cannot_meet_say_how_they_could(job):
    job.ranks("GEN_0", ["true"], 2)
    assert [job.end(f"GEN_0.{rank}") for rank in range(2)] == [1, 1]
    assert "srun --mpi=pmix" in job.log("GEN_0.0")


def test_a_coordinator_under_the_launcher_is_a_failed_test(job):
    job.role("DISAGG_SERVER", "disagg_upload-standin_3nodes", ranks=1)
    assert job.end("DISAGG_SERVER.0") == 1
    assert "must not run under trtllm-llmapi-launch" in job.log("DISAGG_SERVER.0")


def test_a_rank_without_the_launcher_is_a_failed_test(job):
    job.spawn("GEN_0", job.base_command("GEN_0", "disagg_upload-standin_3nodes"), "GEN_0", SLURM_PROCID="1")
    assert job.end("GEN_0") == 1
    assert "start it with trtllm-llmapi-launch" in job.log("GEN_0")


def test_without_a_known_config_the_error_says_what_was_looked_for(job):
    job.role("DISAGG_SERVER", "disagg_upload-no_such_config")
    assert job.end("DISAGG_SERVER") == 1
    assert "no node_info.json" in job.log("DISAGG_SERVER")


@pytest.mark.parametrize(("config", "counts"), [
    ("disagg_upload-standin_3nodes", (1, 1)),
    ("disagg_upload-e2e-standin_2gen_3ctx", (3, 2)),
    ("disagg_upload-standin_64servers", (32, 32)),
    ("disagg_upload-standin_gen_only", (0, 1)),
    ("disagg-gen_only-standin_gen_only", (0, 1)),
    ("disagg-gen_only-standin_3nodes", (1, 1)),
])  # fmt: skip
def test_a_config_says_how_many_servers_there_are(config, counts):
    assert expected.of_config(config) == counts


# Each fault, and what the processes of a job show of it.

WORKERS_AND_COORDINATOR = [("GEN_0", "GEN_0.0"), ("CTX_0", "CTX_0.0"), ("DISAGG_SERVER", "DISAGG_SERVER")]


@pytest.mark.parametrize(("role", "process"), [*WORKERS_AND_COORDINATOR, ("BENCHMARK", "BENCHMARK")])
def test_die_at_start(job, role, process):
    job.whole(fault=f"{role}:die_at_start")
    assert job.end(process) == faults.DEATH_STATUS
    assert not job.address(role)


@pytest.mark.parametrize(("role", "process"), WORKERS_AND_COORDINATOR)
def test_die_after_some_requests_leaves_the_benchmark_waiting(job, role, process):
    job.whole(fault=f"{role}:die_after:3")
    assert job.end(process) == faults.DEATH_STATUS
    job.wait_for_line("BENCHMARK", "trying again")
    assert job.processes["BENCHMARK"].poll() is None


def test_a_benchmark_that_dies_after_some_requests(job):
    job.whole(fault="BENCHMARK:die_after:3")
    assert job.end("BENCHMARK") == faults.DEATH_STATUS
    assert not (job.workspace / "report.csv").exists()


@pytest.mark.parametrize(("role", "process"), WORKERS_AND_COORDINATOR)
def test_a_server_that_hangs_is_healthy_and_answers_nothing(job, role, process):
    job.settings["STANDIN_REQUEST_TIMEOUT"] = "1"
    job.whole(fault=f"{role}:hang")
    assert job.end("BENCHMARK") == 1
    assert "not served within 1.0 s" in job.log("BENCHMARK")
    assert job.processes[process].poll() is None
    assert job.stop()[process] == 0


def test_a_benchmark_that_hangs(job):
    job.whole(fault="BENCHMARK:hang")
    job.wait_for_line("BENCHMARK", "fault hang")
    assert job.processes["BENCHMARK"].poll() is None


@pytest.mark.parametrize(("role", "process"), [*WORKERS_AND_COORDINATOR, ("GEN_0", "GEN_0.1")])
def test_never_ready(job, role, process):
    job.settings["STANDIN_START_TIMEOUT"] = "2"
    job.whole(fault=f"{process if process == 'GEN_0.1' else role}:never_ready")
    assert job.end("BENCHMARK") == 1
    assert "not ready within STANDIN_START_TIMEOUT" in job.log("BENCHMARK")
    assert job.processes[process].poll() is None
    assert not job.address(role)


@pytest.mark.parametrize(("role", "process"), [*WORKERS_AND_COORDINATOR, ("BENCHMARK", "BENCHMARK")])
def test_exit_zero_early(job, role, process):
    job.whole(fault=f"{role}:exit_zero_early")
    assert job.end(process) == 0
    assert not (job.workspace / "report.csv").exists()


@pytest.mark.parametrize("process", ["GEN_0.0", "GEN_0.1", "DISAGG_SERVER", "BENCHMARK"])
def test_flood_log_writes_its_megabytes_and_passes(job, process):
    job.whole(fault=f"{process.removesuffix('.0')}:flood_log:2")
    assert job.end("BENCHMARK") == 0
    assert len(job.log(process)) >= 2 << 20


@pytest.mark.parametrize("process", ["GEN_0.0", "GEN_0.1", "DISAGG_SERVER"])
def test_ignore_sigterm_serves_and_then_needs_sigkill(job, process):
    job.whole(fault=f"{process.removesuffix('.0')}:ignore_sigterm")
    assert job.end("BENCHMARK") == 0
    for other in job.processes.values():
        other.terminate()
    assert job.end("CTX_0.1") == 0
    with pytest.raises(subprocess.TimeoutExpired):
        job.end(process, seconds=1)


@pytest.mark.parametrize(("fault", "process", "status"), [
    ("GEN_0", "GEN_0.0", 128 + signal.SIGSEGV),
    ("DISAGG_SERVER", "DISAGG_SERVER", -signal.SIGSEGV),
    ("BENCHMARK", "BENCHMARK", -signal.SIGSEGV),
    ("GEN_0.1", "GEN_0.1", -signal.SIGSEGV),
])  # fmt: skip
def test_die_by_signal(job, fault, process, status):
    job.whole(fault=f"{fault}:die_by_signal:{signal.SIGSEGV:d}")
    assert job.end(process) == status


@pytest.mark.parametrize("fault", ["die_by_signal:9", "exit_zero_early"])
def test_a_lost_rank_ends_its_server(job, fault):
    job.whole(ranks=3, fault=f"GEN_0.1:{fault}")
    assert [job.end("GEN_0.0"), job.end("GEN_0.2")] == [1, 1]
    assert "rank 1 is gone" in job.log("GEN_0.0")


def test_a_failed_benchmark_is_in_its_junit_file(job):
    job.whole(fault="BENCHMARK:fail")
    assert job.end("BENCHMARK") == 1
    assert junit(job, "BENCHMARK")[0].get("failures") == "1"


@pytest.mark.parametrize(("text", "complaint"), [
    ("GEN_0", "is not ROLE"),
    ("GEN_0:explode", "unknown kind 'explode'"),
    ("GEN_0:die_after", "takes a number"),
    ("GEN_0:hang:3", "takes no number"),
    ("GEN_0.2:die_after:3", "only rank 0"),
])  # fmt: skip
def test_a_fault_that_no_role_can_show_is_an_error(text, complaint):
    with pytest.raises(faults.FaultError, match=complaint):
        faults.parse(text)


def test_faults_are_found_by_role_and_rank():
    text = "GEN_1:die_after:3, DISAGG_SERVER:hang,GEN_1.2:ignore_sigterm,GEN_1:flood_log:1"
    assert faults.parse(text) == {
        ("GEN_1", 0): {"die_after": 3, "flood_log": 1}, ("DISAGG_SERVER", 0): {"hang": None}, ("GEN_1", 2): {"ignore_sigterm": None},
    }  # fmt: skip
