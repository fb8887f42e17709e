# SPDX-License-Identifier: Apache-2.0
"""The files in the test's own directory, `<output-dir>/<test id>`, by which the test and its launcher work together.

Servers end once the benchmark has written its status. Of tests of generation servers alone, the figure is in the servers' logs,
which are read when the launcher has marked them as complete.
"""

import os
import re
import time
from pathlib import Path

FORM = re.compile(r"(disagg|aggr)(_upload)?-(?P<mode>e2e|gen_only_no_context|gen_only)(-time_breakdown)?-.")
TOKEN = "TRTLLM_PERF_RUN_TOKEN"
STEP_TIME = re.compile(r"iter = (\d+), prev_device_step_time = ([\d.]+)ms")
RANK = re.compile(r"(PMI|MPI|OMPI|SLURM)")
KEPT = ("SLURM_JOB_ID", "SLURM_PROCID")


class Output:
    """What a test with a mode in its id finds there; other tests find nothing."""

    def __init__(self, output_dir, test_id, role):
        form = FORM.match(test_id)
        self.directory = Path(output_dir) / test_id if form else None
        self.measures_steps = bool(form) and form["mode"] != "e2e"
        self.status = self.directory and self.directory / "benchmark_status.0.txt"
        self.token = os.environ.get(TOKEN)
        if not form:
            return
        assert re.fullmatch(r"\d+\.\d+\.\d+", self.token or ""), f"{TOKEN}={self.token} names no run of a job"
        assert self.directory.is_dir(), f"the launcher has not created {self.directory}"
        if role in ("BENCHMARK", "DISAGG_SERVER"):
            rank = [name for name in os.environ if RANK.match(name) and name not in KEPT]
            assert not rank, f"{role} would take itself for a rank: {rank}"
            assert not self.status.exists(), f"{self.status} is an earlier run's"

    def is_measured(self):
        """Whether servers are to end."""
        return bool(self.status) and self.status.exists()

    def measured(self):
        """The benchmark has no more requests."""
        if self.status:
            self.status.write_text("Done")

    def step_times(self, write):
        """A generation server's figures, in its log and nowhere else, and not before it ends."""
        if self.measures_steps:
            for step in range(5, 10):
                write(f"[RANK 0] iter = {step}, prev_device_step_time = {step / 2}ms, states = {{'num_generation_tokens': 4}}")

    def read_step_times(self, gen, is_marked=True):
        """The mean over all generation servers; an error for a log that lacks its figures."""
        if not self.measures_steps:
            return None
        means = []
        for index in range(len(gen)):
            log, mark = (self.directory / f"gen_server_{index}.{end}" for end in ("log", "done"))
            deadline = time.monotonic() + 60
            while is_marked and not mark.exists():
                assert time.monotonic() < deadline, f"{mark} does not come"
                time.sleep(0.1)
            # A complete log is read once; what this process has written itself is still on its way through srun.
            while len(times := [float(found[2]) for found in STEP_TIME.finditer(log.read_text())]) < 5:
                assert not is_marked and time.monotonic() < deadline, f"{log} has the times of {len(times)} steps"
                time.sleep(0.1)
            means.append(sum(times) / len(times))
        return sum(means) / len(means)
