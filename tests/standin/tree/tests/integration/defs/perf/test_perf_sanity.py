# SPDX-License-Identifier: Apache-2.0
"""One test, four roles: DISAGG_SERVING_TYPE says which one this process plays."""

import os
import select
import signal
import time
from pathlib import Path

import pytest
from standin import addresses, expected, faults, serving
from standin.benchmark import Benchmark, setting, write_csv, write_log
from standin.output import Output

SERVER = ("CTX", "GEN", "DISAGG_SERVER")


class Role:
    """What every role has: its name, its faults, its log, and the wish that it end."""

    def __init__(self, name, output_dir, test_id, log):
        self.name, self.output_dir, self.log = name, output_dir, log
        self.output = Output(output_dir, test_id, name)
        self.faults = faults.of(name, 0)
        self.stop = os.pipe()
        self.deadline = time.monotonic() + setting("STANDIN_START_TIMEOUT", 600.0)

    def write(self, line):
        """A line of the role's log, past pytest's capture: it must be there even when the process dies."""
        data = memoryview((line + "\n").encode())
        while data:
            data = data[os.write(self.log, data) :]

    def end_on_sigterm(self):
        """SIGTERM is a server's regular end. Further ones are ignored, so that none hits the end itself."""

        def handler(number, _frame):
            signal.signal(number, signal.SIG_IGN)
            # An Event has a lock, which the interrupted thread may hold.
            os.write(self.stop[1], b".")

        if "ignore_sigterm" not in self.faults:
            signal.signal(signal.SIGTERM, handler)

    def is_told_to_stop(self, seconds):
        """Whether SIGTERM comes within so many seconds, or has come before."""
        return bool(select.select([self.stop[0]], [], [], seconds)[0])

    def wait_for(self, roles):
        """Waits until servers answer; returns their addresses."""
        found = {}
        while missing := [role for role in roles if role not in found]:
            for role in missing:
                if address := serving.find(self.output_dir, role):
                    found[role] = address
            if len(found) < len(roles):
                assert time.monotonic() < self.deadline, f"not ready within STANDIN_START_TIMEOUT: {missing}"
                assert not self.is_told_to_stop(0.1), f"told to stop while waiting for {missing}"
        return [found[role] for role in roles]

    def serve(self, server):
        """Serves from now until SIGTERM, or until the benchmark is done."""
        server.start()
        addresses.publish(self.output_dir, self.name, server.address)
        self.write(f"standin {self.name}: ready at {server.address['host']}:{server.address['port']} {server.facts}")
        faults.once_ready(self.faults, self.write)
        if "exit_zero_early" not in self.faults:
            while not (self.output.is_measured() or self.is_told_to_stop(0.2)):
                pass
        if self.name.startswith("GEN"):
            self.output.step_times(self.write)
        addresses.withdraw(self.output_dir, self.name, server.address)
        self.write(f"standin {self.name}: ends after {server.requests} requests")


@pytest.fixture
def role(request, capfd):
    with capfd.disabled():
        log = os.dup(1)
    kind = "aggr" if request.node.callspec.params["test_id"].startswith("aggr") else None
    name = os.environ.get("DISAGG_SERVING_TYPE") or (kind and "AGGREGATED")
    assert name, "DISAGG_SERVING_TYPE says which role to play: GEN_<i>, CTX_<i>, DISAGG_SERVER, BENCHMARK or AGGREGATED"
    output_dir = request.config.option.output_dir
    assert output_dir, "--output-dir says where the roles find each other"
    os.write(log, b"\n")  # pytest has left the test's name without a line end
    yield Role(name, output_dir, request.node.callspec.params["test_id"], log)
    os.close(log)


def worker(role):
    ranks = setting("tllm_mpi_size", 1)
    assert os.environ.get("SLURM_PROCID", "0") == "0", "each rank runs the server: start it with trtllm-llmapi-launch"
    facts = {"ranks": ranks, "barrier": os.environ.get("STANDIN_BARRIER", "alone"), "token": role.output.token}
    time.sleep(setting("STANDIN_START_SECONDS", 0.0))
    return serving.Server(serving.WorkerHandler, role.name, role.faults, role.write, facts)


def coordinator(role, ctx, gen):
    found = role.wait_for(ctx + gen)
    assert {address["token"] for address in found} == {role.output.token}, f"servers of another run: {found}"
    server = serving.Server(serving.CoordinatorHandler, role.name, role.faults, role.write, {"ctx": len(ctx), "gen": len(gen)})
    server.ctx, server.gen = found[: len(ctx)], found[len(ctx) :]
    return server


def measure(role, address, ctx, gen, test_id, csv_path):
    if "hang" in role.faults:
        role.write(f"standin {role.name}: fault hang")
        faults.forever()
    faults.once_ready(role.faults, role.write)
    if "exit_zero_early" in role.faults:
        return
    try:
        figures = Benchmark(address, ctx, gen, role.faults, role.write).run()
    finally:
        role.output.measured()
    role.write(f"standin {role.name}: {figures['completed']} requests in {figures['duration']:.2f} s")
    write_log(Path(role.output_dir, test_id, "trtllm-benchmark.0.0.log"), figures)
    is_alone = role.name == "AGGREGATED"
    if is_alone:
        role.output.step_times(role.write)
    if step_time := role.output.read_step_times(gen, is_marked=not is_alone):
        role.write(f"standin {role.name}: {step_time} ms per step")
    if csv_path:
        write_csv(csv_path, test_id, figures)
    assert "fail" not in role.faults, "standin: fault fail"


def test_e2e(test_id, role, pytestconfig):
    kind = role.name.rpartition("_")[0] if role.name[-1].isdigit() else role.name
    assert kind in (*SERVER, "BENCHMARK", "AGGREGATED"), f"DISAGG_SERVING_TYPE={role.name} is no role"
    if kind in SERVER:
        role.end_on_sigterm()
    faults.at_start(role.faults, role.write)
    if kind in ("DISAGG_SERVER", "BENCHMARK"):
        assert "tllm_mpi_size" not in os.environ, f"{role.name} must not run under trtllm-llmapi-launch"
        ctx, gen = expected.servers(role.output_dir, test_id)
    if kind in ("CTX", "GEN"):
        role.serve(worker(role))
    elif kind == "DISAGG_SERVER":
        role.serve(coordinator(role, ctx, gen))
    elif kind == "BENCHMARK":
        (address,) = role.wait_for(["DISAGG_SERVER"])
        measure(role, address, ctx, gen, test_id, pytestconfig.option.csv)
    else:
        server = worker(role)
        server.start()
        measure(role, server.address, [], [role.name], test_id, pytestconfig.option.csv)
