# SPDX-License-Identifier: Apache-2.0
"""The client: sends requests, checks every token that comes back, measures, writes one line of CSV, and prints what benchmark clients print."""

import csv
import http.client
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import faults
from .serving import post, token

# The names that benchmark clients use, and what they print for each.
FIGURES = {
    "num_prompts": "Total requests",
    "max_concurrency": "Maximum request concurrency",
    "completed": "Successful requests",
    "failed": "Failed requests",
    "duration": "Benchmark duration (s)",
    "request_throughput": "Request throughput (req/s)",
    "output_throughput": "Output token throughput (tok/s)",
    "median_ttft_ms": "Median TTFT (ms)",
}


def setting(name, default):
    """A number from the environment."""
    return type(default)(os.environ.get(name, default))


class Benchmark:
    """One measurement against one address."""

    def __init__(self, address, ctx, gen, mine, write):
        self.address, self.ctx, self.gen, self.mine, self.write = address, ctx, gen, mine, write
        self.tokens = setting("STANDIN_TOKENS", 16)
        self.timeout = setting("STANDIN_REQUEST_TIMEOUT", 600.0)
        # Every server gets two requests at least, so that a fault that needs one is always met.
        self.count = setting("STANDIN_REQUESTS", 2 * max(4, len(ctx), len(gen)))

    def run(self):
        """Returns the values of FIGURES; raises on the first request that cannot be served."""
        started, concurrency = time.monotonic(), setting("STANDIN_CONCURRENCY", 4)
        # Requests that fail without failing the client, as real clients have them.
        failed = min(self.mine.get("fail_requests", 0), self.count)
        with ThreadPoolExecutor(concurrency) as pool:
            first_token = list(pool.map(self.one, range(failed, self.count)))
        seconds, completed = time.monotonic() - started, self.count - failed
        rates = [completed / seconds, completed * self.tokens / seconds]
        figures = [self.count, concurrency, completed, failed, seconds, *rates, 1000 * statistics.median(first_token or [0])]
        return dict(zip(FIGURES, figures))

    def one(self, number):
        """Sends a request until it is answered whole, as clients do; returns the seconds to its first token."""
        if number >= self.mine.get("die_after", number + 1):
            self.write(f"standin BENCHMARK: fault die_after {self.mine['die_after']}")
            os._exit(faults.DEATH_STATUS)
        started, reported = time.monotonic(), False
        while True:
            try:
                return self.answer(number) - started
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() - started > self.timeout:
                    raise TimeoutError(f"request {number} not served within {self.timeout} s: {error!r}") from error
                if not reported:
                    self.write(f"standin BENCHMARK: request {number}: {error!r}; trying again")
                    reported = True
                time.sleep(0.2)

    def answer(self, number):
        """One exchange; returns when the first token came. A token that is not the expected one is a failed test, not a retry."""
        prompt = f"question {number}"
        events, first = [], 0.0
        request = {"prompt": prompt, "max_tokens": self.tokens, "number": number, "stream": True}
        with post(self.address, request, self.timeout) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    events.append(line[6:].strip())
                    first = first or time.monotonic()
        if not events or events.pop() != b"[DONE]":
            raise http.client.HTTPException("the stream ended early")
        makers = [self.expected_maker(number, index) for index in range(self.tokens)]
        expected = [{"index": i, "token": token(prompt, i), "server": maker} for i, maker in enumerate(makers)]
        assert [json.loads(event) for event in events] == expected
        return first

    def expected_maker(self, number, index):
        """The server that a token must have come from."""
        servers = self.ctx if index == 0 and self.ctx else self.gen
        return servers[number % len(servers)]


def write_csv(path, test_id, figures):
    """The report: a heading and one line, whole or not at all."""
    draft = Path(f"{path}.{os.getpid()}")
    with draft.open("w", newline="") as out:
        csv.writer(out).writerows([["test", *figures], [test_id] + [f"{x:.3f}" if isinstance(x, float) else x for x in figures.values()]])
    draft.replace(path)


def write_log(path, figures):
    """What a benchmark client prints, in the file in which the suite keeps it."""
    path.parent.mkdir(exist_ok=True)
    lines = [f"{FIGURES[name] + ':':<40} {value:<10.2f}" for name, value in figures.items()]
    path.write_text("\n".join([" Serving Benchmark Result ".center(50, "="), *lines, "=" * 50, ""]))
