# SPDX-License-Identifier: Apache-2.0
"""The programs of a stand-in engine: a registry, servers over one node or several, a router and a client. Each
checks what it is given and how it is asked, and ends with a message when something is wrong.

STANDIN_FAULT=STEP:FAULT makes one step fail in some way: see `fault`."""

import argparse
import json
import os
import re
import signal
import socket
import stat
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# This node's address: its name, or that of its interface.
HERE = socket.gethostname()
if os.environ.get("STANDIN_INTERFACE"):
    HERE = socket.gethostbyname(HERE)


def check(holds, message):
    if not holds:
        print(f"standin: wrong: {message}", flush=True)
        os._exit(97)


def equal(got, expected, what):
    check(got == expected, f"{what} is {got!r}, not {expected!r}")


def fault(step):
    name, _, kind = os.environ.get("STANDIN_FAULT", "").partition(":")
    return kind if name == step else ""


def call(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=20) as answer:
        return json.loads(answer.read() or b"null")


def serve(port, answer):
    """Serves on this node's address, in the background; `answer(path, body)` gives a status and an object."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, value = answer(self.path, json.loads(body or b"null"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer((HERE, port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def registry(arguments):
    known = []

    def answer(_, body):
        if body:
            known.append(body)
        return 200, known

    serve(arguments.port, answer)
    signal.pause()


def server(arguments):
    name, rank = arguments.name, arguments.node_rank
    equal(rank, int(os.environ["SLURM_NODEID"]), "--node-rank")
    equal(arguments.second, rank * 10 + 1, "--second")
    equal(arguments.headless, rank > 0, "--headless")
    equal(arguments.node_addr, HERE, "--node-addr")
    equal(os.environ.get("SLURM_CPU_BIND_TYPE"), "none", "what it is bound to")
    equal(arguments.nodes, int(os.environ["SLURM_STEP_NUM_NODES"]), "--nodes")
    equal(int(os.environ["SLURM_STEP_NUM_TASKS"]), arguments.nodes, "the number of tasks")
    equal(len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")) * arguments.nodes, int(os.environ["STANDIN_GPUS"]), "GPUs")
    if rank == 0:
        equal(arguments.leader, HERE, "--leader")
    with open(arguments.config) as file:
        equal(stat.S_IMODE(os.fstat(file.fileno()).st_mode), 0o600, "the mode of --config")
        config = json.load(file)
    url = config.pop("registry")
    expected = {"name": name, "port": arguments.port, "leader": arguments.leader, "rank_of": int(name.split("_")[1])}
    equal(config, expected, "--config")
    # The registry is there before any server.
    call(url, {"name": name, "rank": rank})
    if rank > 0:
        while True:
            try:
                with socket.create_connection((arguments.leader, arguments.boot), timeout=5) as leader:
                    leader.sendall(f"{rank}\n".encode())
                    break
            except OSError:
                time.sleep(0.1)
        if fault(name) == "follower_ends":
            sys.exit(0)
        signal.pause()

    missing = set(range(1, arguments.nodes))

    def answer(path, body):
        if path == "/health":
            return (503 if missing else 200), {}
        if path == "/whoami":
            return 200, {"name": name, "boot": arguments.boot}
        if name.startswith("PREFILL"):
            equal(body["bootstrap"], [arguments.leader, arguments.boot], "the request's bootstrap address")
        kind = fault(name)
        if kind == "ends":
            os._exit(0)
        if kind == "fatal":
            print("STANDIN fatal: a request was too much", flush=True)
        if kind == "hangs":
            os.kill(os.getpid(), signal.SIGSTOP)
        return 200, {"by": name}

    serve(arguments.port, answer)
    if fault(name) == "takes_ports":
        serve(8100, answer)
    with socket.create_server((HERE, arguments.boot)) as boot:
        while missing:
            follower, _ = boot.accept()
            with follower:
                missing.discard(int(follower.makefile().readline()))
        print(f"{name} has all its nodes", flush=True)
        signal.pause()


def worker(arguments):
    """A rank of a server that has a rank for each GPU."""
    equal(arguments.rank, int(os.environ["SLURM_PROCID"]), "--rank")
    equal(arguments.local_rank, int(os.environ["SLURM_LOCALID"]), "--local-rank")
    equal(arguments.node_rank, int(os.environ["SLURM_NODEID"]), "--node-rank")
    equal(len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")), 1, "the number of GPUs")
    if arguments.rank == 0:
        equal(arguments.leader, HERE, "--leader")
        serve(arguments.port, lambda *_: (200, [{"by": arguments.name}]))
    signal.pause()


def router(arguments):
    workers = []
    for url, boot in arguments.prefill:
        # It starts when the servers are ready.
        equal(call(f"{url}/whoami")["boot"], int(boot), "the bootstrap port of a prefill server")
        workers.append({"role": "prefill", "url": url, "boot": int(boot)})
    for url in arguments.decode:
        call(f"{url}/whoami")
        workers.append({"role": "decode", "url": url})
    count = iter(range(1 << 30))

    def answer(path, _):
        if path == "/workers":
            return 200, {"workers": workers}
        number = next(count)
        prefills = [worker for worker in workers if worker["role"] == "prefill"]
        decodes = [worker for worker in workers if worker["role"] == "decode"]
        prefill, decode = prefills[number % len(prefills)], decodes[number % len(decodes)]
        host = re.match("http://(.*):", prefill["url"])[1]
        try:
            by = call(prefill["url"] + "/prefill", {"bootstrap": [host, prefill["boot"]]})
            return 200, [by, call(decode["url"] + "/decode", {})]
        except OSError as error:
            return 500, str(error)

    serve(arguments.port, answer)
    signal.pause()


def client(arguments):
    step = os.environ["SLURM_JOB_NAME"]
    kind = fault(step)
    completed = failed = 0
    seen = set()
    for number in range(arguments.prompts):
        try:
            if kind == "requests_fail" and number > 0:
                raise urllib.error.URLError("made up")
            seen.update(answer["by"] for answer in call(arguments.url + "/ask", {}))
            completed += 1
        except OSError as error:
            print(f"{step}: {error}", flush=True)
            failed += 1
    print(f"{step}: answers of {' '.join(sorted(seen))}", flush=True)
    os.makedirs(arguments.results, exist_ok=True)
    result = {
        "max_concurrency": arguments.concurrency,
        "completed": completed,
        "failed": failed,
        "num_prompts": arguments.prompts,
        "request_throughput": 1.5,
    }
    with open(f"{arguments.results}/result.json", "w") as file:
        json.dump(result, file)
    # Whoever else fails is seen first.
    time.sleep(8 if os.environ["STANDIN_FAULT"] and not kind else 0)
    sys.exit(3 if kind == "fails" else 0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", choices=["registry", "server", "worker", "router", "client"])
    for text in ["--name", "--leader", "--node-addr", "--config", "--url", "--results"]:
        parser.add_argument(text)
    for number in ["--rank", "--local-rank", "--port", "--boot", "--nodes", "--node-rank", "--second", "--tp", "--concurrency", "--prompts"]:
        parser.add_argument(number, type=int)
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--prefill", nargs=2, action="append", default=[])
    parser.add_argument("--decode", action="append", default=[])
    arguments = parser.parse_args()
    globals()[arguments.program](arguments)


main()
