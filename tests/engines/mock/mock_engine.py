# SPDX-License-Identifier: Apache-2.0
"""A server with the command line of SGLang's or vLLM's, without a model: its nodes find their leader, and a decode
server fetches what the prefill server made of a request from the address that it is told. What does not fit fails."""

import argparse
import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIMIT = 60  # seconds for one thing to happen, on a busy machine too


def log(**fields):
    print(json.dumps(fields), flush=True)


def options():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", "--model-path", dest="model", required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--nnodes", type=int, default=1)
    parser.add_argument("--node-rank", type=int, default=0)
    parser.add_argument("--dist-init-addr")
    parser.add_argument("--master-addr")
    parser.add_argument("--master-port")
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--disaggregation-mode")
    parser.add_argument("--disaggregation-bootstrap-port", type=int)
    parser.add_argument("--kv-transfer-config", type=json.loads)
    known, others = parser.parse_known_args()
    log(step=os.environ["SLURM_STEP_ID"], rank=known.node_rank, others=others)
    return known


def accept_all(port, answer):
    """Answers each line that comes to a port with a line."""

    def talk(connection):
        with connection, connection.makefile("rw") as file:
            for line in file:
                file.write(json.dumps(answer(json.loads(line))) + "\n")
                file.flush()

    def serve():
        while True:
            threading.Thread(target=talk, args=[listener.accept()[0]], daemon=True).start()

    listener = socket.create_server(("0.0.0.0", port))
    threading.Thread(target=serve, daemon=True).start()


def connect(host, port):
    until = time.monotonic() + LIMIT
    while True:
        try:
            return socket.create_connection((host, int(port)), timeout=LIMIT).makefile("rw")
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def ask(file, question):
    file.write(json.dumps(question) + "\n")
    file.flush()
    return json.loads(file.readline())


class Nodes:
    """The nodes of one server: each follower tells the leader its rank, once."""

    def __init__(self, args):
        self.missing = set(range(1, args.nnodes))
        if args.nnodes == 1:
            return
        host, port = (args.dist_init_addr or f"{args.master_addr}:{args.master_port}").rsplit(":", 1)
        if args.node_rank == 0:
            assert host == socket.gethostname(), f"leader {host} is not {socket.gethostname()}"
            accept_all(int(port), lambda line: self.missing.remove(line["rank"]) or "welcome")
            return
        leader = connect(host, port)
        assert ask(leader, {"rank": args.node_rank}) == "welcome"
        leader.readline()
        sys.exit("the leader has gone")


class Caches:
    """What a prefill server made of requests, by their rooms, for decode servers to fetch."""

    def __init__(self, port):
        self.rooms = {}
        self.changed = threading.Condition()
        if port is not None:
            accept_all(port, self.taken)

    def put(self, room, cache):
        with self.changed:
            self.rooms[room] = cache
            self.changed.notify_all()

    def taken(self, room):
        with self.changed:
            self.changed.wait_for(lambda: room in self.rooms, LIMIT)
            return self.rooms.pop(room)


def handler(nodes, caches, own):
    rooms = iter(range(1 << 30))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, content):
            content = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            if nodes.missing:
                self.answer(503, {"missing": sorted(nodes.missing)})
            elif self.path == "/v1/models":
                self.answer(200, {"object": "list", "data": [{"id": own["model"], "object": "model"}]})
            else:
                self.answer(200, {"model_path": own["model"], "tokenizer_path": "", "is_generation": True})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt, answer = body["prompt"], {"object": "text_completion", "model": own["model"]}
            transfer = body.get("kv_transfer_params")
            if body["model"] != own["model"]:
                return self.answer(404, {"error": f"no model {body['model']}"})
            if own["mode"] == "prefill" and transfer:
                assert transfer["do_remote_decode"] is True, transfer
                room = next(rooms)
                caches.put(room, prompt)
                answer["kv_transfer_params"] = own["channel"] | {"do_remote_prefill": True, "remote_block_ids": [room]}
            elif own["mode"] == "prefill":
                assert body["bootstrap_port"] == own["bootstrap"], body
                caches.put(body["bootstrap_room"], prompt)
            elif own["mode"] == "decode":
                where = (transfer["remote_host"], transfer["remote_port"]) if transfer else (body["bootstrap_host"], body["bootstrap_port"])
                room = transfer["remote_block_ids"][0] if transfer else body["bootstrap_room"]
                cache = ask(connect(*where), room)
                if cache != prompt:
                    return self.answer(500, {"error": f"{cache} is the cache of {prompt}"})
            log(did=own["mode"], prompt=prompt)
            answer["choices"] = [{"index": 0, "text": f"{prompt} again", "finish_reason": "length"}]
            self.answer(200, answer)

        def log_message(self, *_):
            pass

    return Handler


def main():
    args = options()
    nodes = Nodes(args)
    role = (args.kv_transfer_config or {}).get("kv_role")
    mode = args.disaggregation_mode or {"kv_producer": "prefill", "kv_consumer": "decode"}.get(role)
    side = os.environ.get("VLLM_NIXL_SIDE_CHANNEL_PORT")
    port = args.disaggregation_bootstrap_port or (side and int(side))
    channel = {"remote_engine_id": socket.gethostname(), "remote_host": os.environ.get("VLLM_NIXL_SIDE_CHANNEL_HOST"), "remote_port": port}
    own = {"model": args.served_model_name, "mode": mode, "channel": channel, "bootstrap": args.disaggregation_bootstrap_port}
    ThreadingHTTPServer.request_queue_size = 64
    ThreadingHTTPServer((args.host, args.port), handler(nodes, Caches(port if mode == "prefill" else None), own)).serve_forever()
