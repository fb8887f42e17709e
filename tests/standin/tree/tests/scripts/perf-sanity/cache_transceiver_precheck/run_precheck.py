# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the check that caches travel between the servers: it checks that it was started as
the real one is, and notes it. STANDIN_PRECHECK_FAULT names the step that fails."""

import argparse
import os
import sys
from pathlib import Path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--benchmark-mode", choices=["e2e", "gen_only"], required=True)
    parser.add_argument("--llm-src", type=Path, required=True)
    parser.add_argument("--role", choices=["gen", "ctx"], required=True)
    parser.add_argument("--server-idx", type=int, required=True)
    arguments = parser.parse_args()
    step = os.environ["DISAGG_SERVING_TYPE"]
    assert step == f"{arguments.role.upper()}_PRECHECK_{arguments.server_idx}", step
    assert arguments.config.is_file() and arguments.llm_src.is_dir()
    rank = os.environ.get("SLURM_PROCID", "0")
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    (arguments.work_dir / f"{step}.{rank}").write_text("started\n")
    if os.environ.get("STANDIN_PRECHECK_FAULT") == step:
        sys.exit(f"standin: {step} rank {rank}: the caches do not travel")
    print(f"standin: {step} rank {rank}: the caches travel")


main()
