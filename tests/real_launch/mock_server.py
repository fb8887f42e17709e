# SPDX-License-Identifier: Apache-2.0
"""A server that is ready after two seconds (GET /health, and two workers in GET /workers), and then does as its
second argument says; the first is its port. Of several ranks, only the first serves."""

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, BEHAVIOUR = int(sys.argv[1]), sys.argv[2]
READY = time.monotonic() + 2


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        is_ready = time.monotonic() > READY
        workers = [{"type": "prefill"}, {"type": "decode"}] if is_ready else [{"type": "prefill"}]
        self.send_response(200 if is_ready or self.path == "/workers" else 503)
        self.end_headers()
        if self.path == "/workers":
            self.wfile.write(json.dumps({"workers": workers}).encode())

    def log_message(self, *_):
        pass


if os.environ["SLURM_PROCID"] != "0":
    signal.pause()
server = ThreadingHTTPServer((socket.gethostname(), PORT), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
time.sleep(4)
if BEHAVIOUR == "hang":
    os.kill(os.getpid(), signal.SIGSTOP)
elif BEHAVIOUR == "cuda":
    print("\033[31mRuntimeError: CUDA error: an illegal memory access was encountered\033[0m", flush=True)
elif BEHAVIOUR == "end":
    sys.exit(0)
elif BEHAVIOUR == "crash":
    os._exit(3)
signal.pause()
