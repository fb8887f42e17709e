# SPDX-License-Identifier: Apache-2.0
"""The HTTP servers: a worker that makes tokens up, and the coordinator that sends each request through CTX and then GEN.

Tokens follow from the prompt alone, so that the benchmark can tell whether what arrived is what the workers should have made.
"""

import hashlib
import http.client
import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import addresses, faults


def token(prompt, index):
    """The index-th token of the answer to a prompt."""
    return hashlib.sha256(f"{index} {prompt}".encode()).hexdigest()[:8]


class Handler(BaseHTTPRequestHandler):
    """JSON in; JSON, or server-sent events in chunks, out."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self.reply(200, {"role": self.server.role} | self.server.facts)
        else:
            self.reply(404, {"error": f"no {self.path}"})

    def do_POST(self):
        if self.path != "/v1/completions":
            return self.reply(404, {"error": f"no {self.path}"})
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.before_answer()
        return self.answer(request)

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def start_events(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, *_):
        """A line per request would drown the role's own."""


class WorkerHandler(Handler):
    """CTX answers with the first token, GEN streams the others, AGGREGATED streams all."""

    def answer(self, request):
        prompt, role = request["prompt"], self.server.role
        if role.startswith("CTX"):
            return self.reply(200, {"first_token": token(prompt, 0), "server": role})
        first = request.get("ctx")
        self.start_events()
        for index in range(request.get("max_tokens", 16)):
            event = {"index": index, "token": token(prompt, index), "server": role}
            if index == 0 and first:
                event = {"index": 0, "token": first["first_token"], "server": first["server"]}
            self.chunk(f"data: {json.dumps(event)}\n\n".encode())
            time.sleep(float(os.environ.get("STANDIN_TOKEN_SECONDS", "0")))
        self.chunk(b"data: [DONE]\n\n")
        return self.wfile.write(b"0\r\n\r\n")


class CoordinatorHandler(Handler):
    """Request n goes to the n-th CTX and GEN, counted around, and to no other: a lost server is not papered over."""

    def answer(self, request):
        ctx, gen = self.server.ctx, self.server.gen
        started = False
        try:
            if ctx:
                with post(ctx[request.get("number", 0) % len(ctx)], request) as answer:
                    request["ctx"] = json.load(answer)
            with post(gen[request.get("number", 0) % len(gen)], request) as answer:
                self.start_events()
                started = True
                for line in answer:
                    self.chunk(line)
            return self.wfile.write(b"0\r\n\r\n")
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close_connection = True
            return None if started else self.reply(502, {"error": f"a worker did not answer: {error!r}"})


class post:
    """The answer to a request, as a context that ends the connection with it."""

    def __init__(self, address, request, timeout=None):
        self.connection = http.client.HTTPConnection(address["host"], address["port"], timeout=timeout)
        self.request = json.dumps(request)

    def __enter__(self):
        self.connection.request("POST", "/v1/completions", self.request, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}: {answer.read().decode()}")
        return answer

    def __exit__(self, *_):
        self.connection.close()


class Server(ThreadingHTTPServer):
    """One role's server: knows its faults and counts its requests."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, handler, role, mine, write, facts):
        super().__init__(("", 0), handler)
        self.role, self.mine, self.write, self.facts = role, mine, write, facts
        self.requests, self.lock = 0, threading.Lock()
        self.address = {"role": role, "host": socket.gethostname(), "port": self.server_address[1], "pid": os.getpid()} | facts

    def start(self):
        """Serves from a thread: the main one waits for SIGTERM."""
        threading.Thread(target=self.serve_forever, args=(3600,), daemon=True).start()

    def before_answer(self):
        """The faults that requests bring out."""
        with self.lock:
            self.requests += 1
            if self.requests > self.mine.get("die_after", self.requests):
                self.write(f"standin {self.role}: fault die_after {self.mine['die_after']}")
                os._exit(faults.DEATH_STATUS)
        if "hang" in self.mine:
            threading.Event().wait()


def find(output_dir, role):
    """The address of a ready server of that role, or None. Asked of the server itself: an address file may be an earlier run's."""
    address = addresses.read(output_dir, role)
    if not address:
        return None
    connection = http.client.HTTPConnection(address["host"], address["port"], timeout=10)
    try:
        connection.request("GET", "/health")
        return address if json.load(connection.getresponse())["role"] == role else None
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()
