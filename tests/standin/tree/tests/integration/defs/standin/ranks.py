# SPDX-License-Identifier: Apache-2.0
"""How the ranks of one server meet: a PMIx fence under `srun --mpi=pmix`, the shared directory elsewhere; then a connection to rank 0.

Only the meeting uses PMIx. Waiting for rank 0's end inside a fence would not do: Slurm ends a step whose fence lasts 300 seconds.
"""

import ctypes
import json
import os
import socket
import time

from . import addresses

KEY = b"standin.leader"


def rank_and_size():
    """This process's rank and the world size, from the launcher's environment; alone when there is none."""
    env = os.environ
    rank = env.get("PMIX_RANK") or env.get("SLURM_PROCID") or env.get("OMPI_COMM_WORLD_RANK") or "0"
    size = env.get("SLURM_STEP_NUM_TASKS") or env.get("OMPI_COMM_WORLD_SIZE") or "1"
    return int(rank), int(size)


class Proc(ctypes.Structure):
    """pmix_proc_t"""

    _fields_ = [("nspace", ctypes.c_char * 256), ("rank", ctypes.c_uint32)]


class Value(ctypes.Structure):
    """pmix_value_t, its union read as a string; the padding covers the union's largest member"""

    _fields_ = [("type", ctypes.c_uint16), ("string", ctypes.c_char_p), ("rest", ctypes.c_byte * 40)]


class Pmix:
    """The PMIx client of this rank (pmix.h 4.x: scope GLOBAL is 3, type STRING is 3, success is 0)."""

    name = "pmix"

    def __init__(self):
        self.lib = ctypes.CDLL("libpmix.so.2")
        self.lib.PMIx_Error_string.restype = ctypes.c_char_p
        self.me = Proc()
        self.leader = None
        self._call("PMIx_Init", ctypes.byref(self.me), None, ctypes.c_size_t(0))

    def _call(self, function, *arguments):
        status = getattr(self.lib, function)(*arguments)
        if status:
            raise RuntimeError(f"{function}: {self.lib.PMIx_Error_string(status).decode()}")

    def exchange(self, address):
        """A barrier over all ranks, once; rank 0 gives its address, every rank gets it."""
        if self.leader:
            return self.leader
        if address:
            value = Value(type=3, string=json.dumps(address).encode())
            self._call("PMIx_Put", ctypes.c_uint8(3), KEY, ctypes.byref(value))
            self._call("PMIx_Commit")
        self._call("PMIx_Fence", None, ctypes.c_size_t(0), None, ctypes.c_size_t(0))
        answer = ctypes.POINTER(Value)()
        rank_0 = Proc(self.me.nspace, 0)
        self._call("PMIx_Get", ctypes.byref(rank_0), KEY, None, ctypes.c_size_t(0), ctypes.byref(answer))
        self.leader = json.loads(answer.contents.string)
        return self.leader

    def close(self):
        """Leaves the job in good order, so that Slurm does not take this rank's end for a crash."""
        self._call("PMIx_Finalize", None, ctypes.c_size_t(0))


class SharedDirectory:
    """The same without PMIx: rank 0's address is in a file of the output directory."""

    name = "file"

    def __init__(self, output_dir, role):
        self.place = (output_dir, f"{role}.ranks")
        self.published = None

    def exchange(self, address):
        """Rank 0 gives its address, every rank gets it; `gather` and `join` make it a barrier."""
        if address:
            addresses.publish(*self.place, address)
            self.published = address
            return address
        while not (found := addresses.read(*self.place)):
            time.sleep(0.05)
        return found

    def close(self):
        """Takes rank 0's file away."""
        if self.published:
            addresses.withdraw(*self.place, self.published)


def gather(meeting, role, size):
    """Rank 0: returns {rank: connection} once every other rank is there."""
    listener = socket.create_server(("", 0), backlog=size)
    meeting.exchange([socket.gethostname(), listener.getsockname()[1]])
    followers = {}
    while len(followers) < size - 1:
        connection, _ = listener.accept()
        connection.settimeout(10)
        try:
            hello = json.loads(connection.makefile().readline() or "null")
            if not hello or hello["role"] != role or hello["size"] != size:
                raise ValueError(f"a stranger: {hello}")
            connection.sendall(b"welcome\n")
        except (OSError, ValueError):
            connection.close()
            continue
        connection.settimeout(None)
        followers[hello["rank"]] = connection
    listener.close()
    return followers


def join(meeting, role, rank, size):
    """Any other rank: returns the line reader of a connection to rank 0, which later sends one line, the status to end with."""
    hello = (json.dumps({"role": role, "rank": rank, "size": size}) + "\n").encode()
    while True:
        # Asked again each time: an address file of an earlier run leads nowhere or to a stranger until rank 0 replaces it.
        host, port = meeting.exchange(None)
        try:
            connection = socket.create_connection((host, port), timeout=10)
            connection.sendall(hello)
            lines = connection.makefile()
            if lines.readline() == "welcome\n":
                connection.settimeout(None)
                return lines
            connection.close()
        except OSError:
            pass
        time.sleep(0.05)
