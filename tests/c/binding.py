# SPDX-License-Identifier: Apache-2.0
"""python/slurm_disagg.py against the built library: binding.py HEADER, run by tests/c_abi.rs."""

import gc
import re
import sys
import unittest

import slurm_disagg
from slurm_disagg import Error, GpuRequest, Plan, Purpose, Status

CONFIG = """\
hardware: {gpus_per_node: 4, num_ctx_servers: 2, num_gen_servers: 1}
worker_config:
  gen: {tensor_parallel_size: 8}
  ctx: {tensor_parallel_size: 4}
environment: {worker_env_var: 'CACHE=/tmp/c_${SLURM_LOCALID} HF_TOKEN=abc'}
"""
AGGREGATED = """\
hardware: {gpus_per_node: 4}
server_configs: [{name: small, tensor_parallel_size: 4}]
"""
with open(sys.argv.pop(), encoding="utf-8") as header:
    HEADER = re.sub(r"/\*.*?\*/", "", header.read(), flags=re.S)


def plan(text=CONFIG, config="c.yaml", test_id=None, environment=None, **settings):
    settings = {"trtllm_dir": "/src", "models_dir": "/models", **settings}
    environment = {} if environment is None else environment
    return Plan(
        config, config_text=text, test_id=test_id, settings=settings, current_dir="/", environment=environment
    )


class Binding(unittest.TestCase):
    def test_structs_and_numbers_are_the_header_s(self):
        for name in ("setting", "options", "variable", "file", "job", "role", "step"):
            body = re.search(r"typedef struct \{([^}]*)\} disagg_%s;" % name, HEADER)[1]
            fields = re.findall(r"(\w+);", body)
            struct = getattr(slurm_disagg, "_" + name.capitalize())
            self.assertEqual([field for field, _ in struct._fields_], fields, name)
        for kind, of in (("STATUS", Status), ("PURPOSE", Purpose), ("GPU_REQUEST", GpuRequest)):
            numbers = re.findall(rf"DISAGG_{kind}_(\w+) = (\d+)", HEADER)
            self.assertEqual({n: int(v) for n, v in numbers if n != "OK"}, {one.name: one.value for one in of})
        self.assertIn(f"#define DISAGG_ABI_VERSION {slurm_disagg._ABI}\n", HEADER)

    def test_a_plan_has_its_job_roles_steps_and_environments(self):
        made = plan(qos="high", mem="0", exclusive="true", gpu_request="gres", sbatch_args=["--mail-type=END", "-H"])
        job = made.job
        self.assertEqual((job.nodes, job.ntasks, job.qos, job.account), (4, 16, "high", None))
        self.assertEqual((job.gpu_request, job.exclusive, job.mem), (GpuRequest.GRES, True, "0"))
        self.assertEqual(job.sbatch_args, ["--mail-type=END", "-H"])
        self.assertEqual([role.name for role in made.roles if role.purpose is Purpose.SERVER], ["GEN", "CTX"])
        self.assertEqual(made.steps, ["GEN_0", "CTX_0", "CTX_1", "DISAGG_SERVER", "BENCHMARK"])
        self.assertEqual(made.checks, [])
        step = made.step("GEN_0", "n[1-4]")
        self.assertEqual((step.hosts, step.tasks, step.mpi), (["n1", "n2"], 8, "pmix"))
        self.assertIn(("HF_TOKEN", "abc", True), step.set)
        self.assertIsNone(made.step("GEN_0").hosts)
        base = {"SLURM_LOCALID": "3", "UCX_TLS": "rc", "KEPT": "gr\udcfc\u00fc"}
        environment = made.environment("GEN_0", base=base)
        self.assertEqual(environment["CACHE"], "/tmp/c_3")
        self.assertEqual(environment["KEPT"], base["KEPT"])
        self.assertNotIn("UCX_TLS", environment)
        self.assertEqual(Plan.load(made.to_json()).job, job)
        self.assertIn("#SBATCH", made.launch_script())

    def test_a_recipe_has_commands_of_tasks_and_files(self):
        roles = "roles: {prefill: {config: {tensor_parallel_size: 4}}, decode: {config: {tensor_parallel_size: 8}}}"
        recipe = "engine: trtllm-serve\nmodel: /m/x\ngpus_per_node: 4\nserve_only: true\n" + roles + "\n"
        made = Plan("r.yaml", config_text=recipe, current_dir="/", environment={})
        self.assertEqual((made.job.nodes, made.steps), (3, ["CTX_0", "GEN_0", "ROUTER"]))
        (file,) = made.step("ROUTER", "n[1-3]").files
        self.assertEqual(file.path, "/disagg_r/server_config.yaml")
        self.assertIn('"n1:', file.text)
        words = made.command("GEN_0", "n[1-3]", {"SLURM_NODEID": "1", "SLURM_PROCID": "4"})
        self.assertEqual(words[:2], ["trtllm-llmapi-launch", "trtllm-serve"])

    def test_an_aggregated_test_is_named_by_its_id(self):
        made = plan(AGGREGATED, config="c.yaml", test_id="aggr_upload-c-small", stage_name="GB200-4_GPUs-1",
                    cluster_name="aws-1")
        self.assertEqual((made.steps, made.job.nodes), (["AGGREGATED"], 1))
        named = plan(AGGREGATED, test_id="aggr_upload-c-small")
        self.assertEqual(plan(AGGREGATED).step("AGGREGATED"), named.step("AGGREGATED"))
        two = AGGREGATED.replace("[", "[{name: big, tensor_parallel_size: 8}, ")
        with self.assertRaisesRegex(Error, "help: give `options->test_id`, one of: aggr_upload-c-big, aggr"):
            plan(two)

    def test_an_error_has_the_place_and_the_words_of_the_library(self):
        with self.assertRaisesRegex(Error, r"^c.yaml:1:27: error: ") as raised:
            plan("hardware: {gpus_per_node: none}\n")
        self.assertEqual(raised.exception.status, Status.BAD_INPUT)
        for wrong, status in (
            (lambda: plan(plasement="packed"), Status.BAD_ARGUMENT),
            (lambda: plan().step("GEN_7"), Status.NOT_FOUND),
            (lambda: plan().step("GEN_0", "n1"), Status.BAD_NODES),
            (lambda: Plan.load("{}"), Status.BAD_PLAN),
            (lambda: Plan("c.yaml", settings={"site": "/none"}), Status.BAD_INPUT),
        ):
            with self.assertRaises(Error) as raised:
                wrong()
            self.assertEqual(raised.exception.status, status)
            self.assertNotRegex(str(raised.exception), r" --[a-z]")

    def test_what_was_taken_outlives_the_plan(self):
        step = plan().step("CTX_1", "n[1-4]")
        gc.collect()
        self.assertEqual(step.hosts, ["n4"])


unittest.main()
