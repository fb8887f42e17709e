# SPDX-License-Identifier: Apache-2.0
"""Asks for completions, and writes what `vllm bench serve` writes. As that does, it ends with 0 whatever came.

usage: client.py URL MODEL CONCURRENCY REQUESTS DIRECTORY
"""

import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

url, model, concurrency, requests, directory = sys.argv[1:]


def completes(number):
    prompt = f"prompt {number}"
    body = {"model": model, "prompt": prompt, "max_tokens": 4}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bool(json.load(answer)["choices"][0])
    except OSError as error:
        print(f"{prompt}: {error}", flush=True)
        time.sleep(0.05)
        return False


start = time.monotonic()
with ThreadPoolExecutor(int(concurrency)) as pool:
    completed = sum(pool.map(completes, range(int(requests))))
duration = time.monotonic() - start
result = {
    "num_prompts": int(requests),
    "completed": completed,
    "failed": int(requests) - completed,
    "duration": duration,
    "request_throughput": completed / duration,
}
Path(directory).mkdir(parents=True, exist_ok=True)
(Path(directory) / "result.json").write_text(json.dumps(result))
print(f"{completed} of {requests} requests completed")
