# SPDX-License-Identifier: Apache-2.0
"""Plans of disaggregated LLM-serving tests on Slurm, from Python.

This file is the whole binding: it needs Python 3.8 or later and libslurm_disagg.so.0, which `make
install` puts where the loader finds it; SLURM_DISAGG_LIBRARY names another file.

    import slurm_disagg

    plan = slurm_disagg.Plan("config.yaml", settings={"trtllm_dir": "/src", "models_dir": "/models"})
    print(plan.job.nodes, [role.name for role in plan.roles])
    for name in plan.steps:
        step = plan.step(name, "node[1-3]")
        print(step.name, step.hosts, step.argv)
        environment = plan.environment(name, "node[1-3]")

The names and meanings are those of slurm_disagg.h. What is wrong with an input is an Error, whose
text has the place (FILE:LINE:COLUMN) and says what to write instead. A Plan never changes, and
threads may share it.
"""

import ctypes
import enum
import os
import weakref
from ctypes import POINTER, byref, c_char_p, c_uint32, c_void_p
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Type, Union, get_type_hints

__all__ = ["Error", "File", "GpuRequest", "Job", "Plan", "Purpose", "Role", "Status", "Step", "Variable", "version"]


class Status(enum.IntEnum):
    """Why a call failed. Later versions may add numbers."""

    NULL_POINTER = 1
    BAD_ARGUMENT = 2
    BAD_INPUT = 3
    BAD_PLAN = 4
    NOT_FOUND = 5
    BAD_NODES = 6
    SYSTEM = 7
    INTERNAL = 100


class Purpose(enum.IntEnum):
    """What a role is for."""

    SERVICE = 0
    CHECK = 1
    SERVER = 2
    ROUTER = 3
    CLIENT = 4


class GpuRequest(enum.IntEnum):
    """How a job asks for its GPUs."""

    PER_NODE = 0
    GRES = 1
    NONE = 2
    TOTAL = 3


class Error(Exception):
    """What is wrong and what to do: str(error) is the text, error.status the kind."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = Status(status) if status in Status.__members__.values() else status


class Variable(NamedTuple):
    """A variable of a step: `${NAME}` in the value refers to a variable of the task, `$$` is a dollar sign."""

    name: str
    value: str
    secret: bool


class File(NamedTuple):
    """A file that a step's command reads, by its absolute path; it may hold secrets."""

    path: str
    text: str


class Job(NamedTuple):
    """The allocation, with the names of sbatch's options; None or 0: the option is not used."""

    name: str
    output: str
    time: str
    partition: Optional[str]
    account: Optional[str]
    nodes: int
    ntasks: int
    ntasks_per_node: int
    gpus_per_node: int
    segment: int
    minutes: int
    qos: Optional[str]
    constraint: Optional[str]
    reservation: Optional[str]
    mem: Optional[str]
    sbatch_args: List[str]
    gpu_request: GpuRequest
    exclusive: bool


class Role(NamedTuple):
    """A kind of step."""

    name: str
    purpose: Purpose
    count: int
    nodes: int
    tasks: int
    tasks_per_node: int
    gpus_per_node: int


class Step(NamedTuple):
    """A Slurm step. Its nodes are None without an allocation."""

    name: str
    role: str
    directory: str
    argv: List[str]
    unset: List[str]
    cleared: List[str]
    kept: List[str]
    set: List[Variable]
    log_file: str
    junit_file: Optional[str]
    mpi: str
    hostlist: Optional[str]
    hosts: Optional[List[str]]
    task_hosts: Optional[List[str]]
    purpose: Purpose
    nodes: int
    first_node: int
    tasks: int
    tasks_per_node: int
    gpus_per_node: int
    first_gpu: int
    shares_node: bool
    overlap: bool
    kill_on_bad_exit: bool
    files: List[File]


class Plan:
    """A plan: what the job asks for, and what each of its steps runs.

    config       path of the configuration, or its name in the source tree
    config_text  the configuration itself, as YAML; config is then its path in messages
    test_id      the test, which names the configuration where config is missing
    settings     settings by name, which win over site.yaml and the environment; a list has several
    current_dir  the absolute directory that relative paths start from
    environment  the environment in place of this process's
    """

    def __init__(
        self,
        config: Optional[str] = None,
        *,
        config_text: Optional[str] = None,
        test_id: Optional[str] = None,
        settings: Optional[Mapping[str, Union[str, Sequence[str]]]] = None,
        current_dir: Optional[str] = None,
        environment: Optional[Mapping[str, str]] = None,
    ) -> None:
        pairs = [
            (name, value)
            for name, values in (settings or {}).items()
            for value in ([values] if isinstance(values, str) else values)
        ]
        array = (_Setting * (len(pairs) + 1))(*((_bytes(name), _bytes(value)) for name, value in pairs))
        options = _Options(
            *map(_bytes, (config, config_text, test_id)), array, _bytes(current_dir), _environment(environment)
        )
        self._take(_called(_library().disagg_plan_new, byref(options)))

    @classmethod
    def load(cls, source: str) -> "Plan":
        """The plan in SLURM_DISAGG_PLAN's value, in the text of to_json, or in a file with that text."""
        plan = cls.__new__(cls)
        plan._take(_called(_library().disagg_plan_load, _bytes(source)))
        return plan

    def _take(self, handle: c_void_p) -> None:
        library = _library()
        self._handle = handle
        weakref.finalize(self, library.disagg_plan_free, handle)
        #: The allocation.
        self.job: Job = _taken(Job, library.disagg_plan_job(handle))
        #: The kinds of steps, in the order in which they start.
        self.roles: List[Role] = []
        while True:
            role = library.disagg_plan_role(handle, len(self.roles))
            if not role:
                break
            self.roles.append(_taken(Role, role))
        #: The warnings and notes, as a text for people.
        self.warnings: str = _text(library.disagg_plan_warnings(handle)) or ""

    @property
    def steps(self) -> List[str]:
        """The names of the steps, without checks, in the order in which they start."""
        return _list(_library().disagg_plan_steps(self._handle)) or []

    @property
    def checks(self) -> List[str]:
        """The names of the checks, which run at the same time before the other steps start."""
        return _list(_library().disagg_plan_checks(self._handle)) or []

    def step(self, name: str, hostlist: Optional[str] = None) -> Step:
        """A step or a check by its name; with the allocation, such as SLURM_JOB_NODELIST, its nodes."""
        library, instance = _library(), self._instance(name, hostlist)
        try:
            return _taken(Step, library.disagg_instance_step(instance))
        finally:
            library.disagg_instance_free(instance)

    def environment(
        self, name: str, hostlist: Optional[str] = None, base: Optional[Mapping[str, str]] = None
    ) -> Dict[str, str]:
        """The environment of a task of a step: base, by default this process's, as the step changes it."""
        entries = self._of_task("environment_vector", name, hostlist, base)
        return dict(entry.split("=", 1) for entry in entries)

    def command(
        self, name: str, hostlist: Optional[str] = None, base: Optional[Mapping[str, str]] = None
    ) -> List[str]:
        """The command of the task that has the environment base."""
        return self._of_task("environment_command", name, hostlist, base)

    def _of_task(
        self, what: str, name: str, hostlist: Optional[str], base: Optional[Mapping[str, str]]
    ) -> List[str]:
        library, instance = _library(), self._instance(name, hostlist)
        try:
            made = _called(library.disagg_environment_new, instance, _environment(base))
        finally:
            library.disagg_instance_free(instance)
        try:
            return _list(getattr(library, "disagg_" + what)(made)) or []
        finally:
            library.disagg_environment_free(made)

    def _instance(self, name: str, hostlist: Optional[str]) -> c_void_p:
        return _called(_library().disagg_instance_new, self._handle, _bytes(name), _bytes(hostlist))

    def to_json(self) -> str:
        """The plan as JSON, one line. It contains the values of all variables, including secrets."""
        return self._string(_library().disagg_plan_to_json)

    def launch_script(self) -> str:
        """A batch script that starts all steps, waits for them and cleans up."""
        return self._string(_library().disagg_plan_launch_script)

    def _string(self, function: Any) -> str:
        string = _called(function, self._handle)
        try:
            return _text(ctypes.cast(string, c_char_p).value) or ""
        finally:
            _library().disagg_string_free(string)


def version() -> str:
    """The release of the library, such as `0.1.0`."""
    return _text(_library().disagg_version()) or ""


# ---- the library


def _struct(of: Type[Any]) -> Type[ctypes.Structure]:
    """The struct of the header with the fields of a class, in their order."""
    types = {str: c_char_p, Optional[str]: c_char_p, List[str]: POINTER(c_char_p), Optional[List[str]]: POINTER(c_char_p)}
    if of is Step:
        types.update({List[Variable]: POINTER(_Variable), List[File]: POINTER(_File)})
    fields = [(name, types.get(kind, c_uint32)) for name, kind in get_type_hints(of).items()]
    return type("disagg_" + of.__name__.lower(), (ctypes.Structure,), {"_fields_": fields})


class _Setting(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("value", c_char_p)]


class _Options(ctypes.Structure):
    _fields_ = [
        ("config", c_char_p),
        ("config_text", c_char_p),
        ("test_id", c_char_p),
        ("settings", POINTER(_Setting)),
        ("current_dir", c_char_p),
        ("environment", POINTER(c_char_p)),
    ]


_Variable, _File = map(_struct, (Variable, File))
_Job, _Role, _Step = map(_struct, (Job, Role, Step))

#: The version of the header that the structs are taken from.
_ABI = 3
_loaded: Optional[ctypes.CDLL] = None


def _library() -> ctypes.CDLL:
    global _loaded
    if _loaded is None:
        name = os.environ.get("SLURM_DISAGG_LIBRARY") or "libslurm_disagg.so.0"
        library = ctypes.CDLL(name)
        if library.disagg_abi_version() < _ABI:
            raise ImportError(f"{name} is older than this slurm_disagg.py")
        for function, result in {
            "version": c_char_p,
            "error_text": c_char_p,
            "plan_job": POINTER(_Job),
            "plan_role": POINTER(_Role),
            "plan_steps": POINTER(c_char_p),
            "plan_checks": POINTER(c_char_p),
            "plan_warnings": c_char_p,
            "instance_step": POINTER(_Step),
            "environment_vector": POINTER(c_char_p),
            "environment_command": POINTER(c_char_p),
        }.items():
            getattr(library, "disagg_" + function).restype = result
        for kind in ("string", "error", "plan", "instance", "environment"):
            free = getattr(library, f"disagg_{kind}_free")
            free.argtypes, free.restype = [c_void_p], None
        library.disagg_plan_role.argtypes = [c_void_p, ctypes.c_size_t]
        _loaded = library
    return _loaded


def _called(function: Any, *arguments: Any) -> c_void_p:
    """What a function stores; its failure is an Error."""
    out, error = c_void_p(), c_void_p()
    status = function(*arguments, byref(out), byref(error))
    if status == 0:
        return out
    text = _text(_library().disagg_error_text(error)) or ""
    _library().disagg_error_free(error)
    raise Error(status, text)


def _bytes(text: Optional[str]) -> Optional[bytes]:
    if text is not None and "\0" in text:
        raise ValueError("a text must not contain NUL")
    return None if text is None else os.fsencode(text)


def _text(value: Optional[bytes]) -> Optional[str]:
    return None if value is None else os.fsdecode(value)


def _environment(variables: Optional[Mapping[str, str]]) -> Any:
    if variables is None:
        return None
    entries = [_bytes(f"{name}={value}") for name, value in variables.items()]
    return (c_char_p * (len(entries) + 1))(*entries)


def _until_null(array: Any, is_last: Any) -> List[Any]:
    found: List[Any] = []
    while not is_last(array[len(found)]):
        found.append(array[len(found)])
    return found


def _list(array: Any) -> Optional[List[str]]:
    if not array:
        return None
    return [_text(entry) or "" for entry in _until_null(array, lambda entry: entry is None)]


def _value(kind: Any, value: Any) -> Any:
    if kind in (List[Variable], List[File]):
        of = Variable if kind is List[Variable] else File
        return [_filled(of, one) for one in _until_null(value, lambda one: getattr(one, of._fields[0]) is None)]
    if kind in (List[str], Optional[List[str]]):
        return _list(value)
    return _text(value) if kind in (str, Optional[str]) else kind(value)


def _filled(of: Type[Any], struct: Any) -> Any:
    return of(*(_value(kind, getattr(struct, name)) for name, kind in get_type_hints(of).items()))


def _taken(of: Type[Any], pointer: Any) -> Any:
    """A copy of a borrowed struct."""
    return _filled(of, pointer.contents)
