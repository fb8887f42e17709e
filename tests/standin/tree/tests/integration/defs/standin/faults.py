# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: reads STANDIN_FAULT, so that a supervisor can be shown every way in which a role goes wrong.

The variable holds `ROLE[.RANK]:KIND[:N]`, several separated by commas. ROLE is a DISAGG_SERVING_TYPE, RANK is 0 when left out.
"""

import os
import re
import signal

# The status of a role that dies of a fault: no shell, Python, pytest or Slurm uses it.
DEATH_STATUS = 42

# Kind -> whether it takes a number, and whether a rank other than 0 can show it (only rank 0 serves requests).
KINDS = {
    "die_at_start": (False, True),
    "die_after": (True, False),
    "die_by_signal": (True, True),
    "exit_zero_early": (False, True),
    "fail": (False, False),
    "fail_requests": (True, False),
    "flood_log": (True, True),
    "hang": (False, False),
    "ignore_sigterm": (False, True),
    "never_ready": (False, True),
}
FORM = re.compile(r"(?P<role>[A-Z]+(?:_[A-Z]+)*(?:_\d+)?)(?:\.(?P<rank>\d+))?:(?P<kind>\w+)(?::(?P<value>\d+))?")


class FaultError(ValueError):
    """STANDIN_FAULT says something that no role can show."""


def parse(text):
    """Returns {(role, rank): {kind: number or None}}; raises FaultError, since a fault that is not understood would make a test pass for nothing."""
    faults = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = FORM.fullmatch(item)
        if not match:
            raise FaultError(f"STANDIN_FAULT: '{item}' is not ROLE[.RANK]:KIND[:N], for example GEN_1:die_after:3")
        kind, value, rank = match["kind"], match["value"], int(match["rank"] or 0)
        if kind not in KINDS:
            raise FaultError(f"STANDIN_FAULT: unknown kind '{kind}' in '{item}'; known: {', '.join(KINDS)}")
        takes_number, any_rank = KINDS[kind]
        if takes_number != (value is not None):
            raise FaultError(f"STANDIN_FAULT: '{item}': {kind} takes {'a' if takes_number else 'no'} number")
        if rank and not any_rank:
            raise FaultError(f"STANDIN_FAULT: '{item}': only rank 0 serves requests and reports, so only rank 0 can show {kind}")
        faults.setdefault((match["role"], rank), {})[kind] = int(value) if value else None
    return faults


def of(role, rank):
    """The faults that this process shows."""
    return parse(os.environ.get("STANDIN_FAULT", "")).get((role, rank), {})


def at_start(faults, write):
    """The faults of a process's first moment; `write` puts a line into its log."""
    if "ignore_sigterm" in faults:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "flood_log" in faults:
        line = "standin: flood " + "=" * 112
        for _ in range(faults["flood_log"] * 8):
            write("\n".join([line] * 1024))
    if "die_at_start" in faults:
        write("standin: fault die_at_start")
        os._exit(DEATH_STATUS)
    if "never_ready" in faults:
        write("standin: fault never_ready")
        forever()


def once_ready(faults, write):
    """The deaths that come right after a process has become useful."""
    if "die_by_signal" in faults:
        write(f"standin: fault die_by_signal {faults['die_by_signal']}")
        if faults["die_by_signal"] not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(faults["die_by_signal"], signal.SIG_DFL)
        os.kill(os.getpid(), faults["die_by_signal"])
        forever()


def forever():
    """Never returns; signals still have their effect."""
    while True:
        signal.pause()
