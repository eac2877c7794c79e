"""What native frames are: functions with their objects, and the part that an interpreter has there.

Names are those that were attached to the capture (`native_names`). A function is known by its name
and its object, never by an address: code without a name is one function for each object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from perfkit.analysis.align import Aligned
from perfkit.analysis.stacks import RUNTIME, Function

STACK_LIMIT = 65_536
DEPTH_LIMIT = 512
NATIVE, KERNEL = "native", "kernel"
LOCK_WAIT = Function("(wait for the GIL)", "", RUNTIME)
UNNAMED = "code without a name"
_DELETED = " (deleted)"
_LABELS = {"vdso": "[vdso]", "kernel": "[kernel]", "anonymous": "[anonymous]"}
# What compilers append to the name of a part or a copy of a function.
_COPY = re.compile(
    r"(?: ?\[clone [^\]]*\]|\.(?:constprop|isra|part|cold|lto_priv|llvm|localalias)(?:\.\d+)*)+$"
)
# CPython's own functions, by what they do; each one only counts in the interpreter's object.
_EVAL = re.compile(r"_PyEval_EvalFrameDefault|_TAIL_CALL_\w+")
_COLLECTOR = re.compile(
    r"gc_collect\w*|_?PyGC_Collect\w*|_Py_RunGC|collect(?:_with_callback|_generations)?"
)
_LOCK = re.compile(
    r"take_gil|_PyEval_AcquireLock|PyEval_(?:RestoreThread|AcquireThread|AcquireLock)"
)
_GLUE = re.compile(
    r"_?PyEval_(?:EvalFrame(?:Ex)?|Vector|EvalCode\w*)"
    r"|_?PyObject_(?:Vectorcall\w*|Call\w*|FastCall\w*|MakeTpCall)"
    r"|_?Py(?:Vectorcall_\w+|Function_(?:Vectorcall|FastCall\w*)|CFunction_\w*[Cc]all\w*|Run_\w+)"
    r"|_?Py_(?:RunMain|BytesMain|Main|EnterRecursiveCall\w*)|pymain_\w+|pyrun_\w+"
    r"|run_(?:mod|eval_code_obj|file)|object_vacall|cfunction_(?:call|vectorcall\w*)"
    r"|method_(?:call|vectorcall\w*)|vectorcall_(?:method|maybe|unbound)"
    r"|slot_tp_(?:call|init|new|iter|iternext)|type_call|do_call_core|trace_call_function"
    r"|call_(?:function|attribute|method|unbound\w*)|gen_(?:send_ex2?|iternext|send)"
    r"|thread_run|t_bootstrap|pythread_wrapper|builtin_exec|exec_code_in_module"
)
_START = re.compile(r"_start|main|__libc_start\w*|start_thread|__?clone3?|clone3?|_?_start_thread")


class Role(IntEnum):
    """What a frame is to a Python interpreter."""

    CODE = 0
    UNNAMED = 1  # code without a name
    EVAL = 2  # it runs Python frames
    GLUE = 3  # the interpreter's way from one call to the next
    COLLECTOR = 4
    LOCK = 5
    START = 6  # how programs and threads begin


@dataclass(frozen=True)
class Place:
    """One native frame; `is_interpreter` where its object is one that runs Python."""

    function: Function
    role: Role
    is_interpreter: bool


@dataclass(frozen=True)
class _Object:
    kind: str
    file: str


def read_native_stacks(aligned: Aligned, source: str) -> dict[int, tuple[Place, ...]]:
    """The stacks of `native` or `wall` by number, leaf first, within limits."""
    places = _read_places(aligned, source)
    table = aligned.table(f"{source}_stacks").sorted_by("stack", "depth")
    columns = (table.integers("stack"), table.integers("object"), table.integers("offset"))
    stacks: dict[int, list[Place]] = {}
    for stack, number, offset in zip(*(one.tolist() for one in columns), strict=True):
        if stack < 0 or (stack not in stacks and len(stacks) >= STACK_LIMIT):
            continue
        frames = stacks.setdefault(stack, [])
        if len(frames) < DEPTH_LIMIT:
            frames.append(places[number, offset])
    return {stack: tuple(frames) for stack, frames in stacks.items()}


def _read_places(aligned: Aligned, source: str) -> dict[tuple[int, int], Place]:
    """Every (object, offset) of a source's stacks as a frame."""
    objects = _read_objects(aligned, source)
    names = _read_names(aligned, source)
    interpreters = {key[0] for key, name in names.items() if _EVAL.fullmatch(name)}
    table = aligned.table(f"{source}_stacks")
    keys = zip(table.integers("object").tolist(), table.integers("offset").tolist(), strict=True)
    found: dict[tuple[int, int], Place] = {}
    for key in dict.fromkeys(keys):
        where = objects.get(key[0], _Object("", "?"))
        name, is_interpreter = names.get(key, ""), key[0] in interpreters
        kind = KERNEL if where.kind == "kernel" else NATIVE
        function = Function(name or UNNAMED, where.file, kind)
        found[key] = Place(function, _find_role(name, is_interpreter), is_interpreter)
    return found


def _find_role(name: str, is_interpreter: bool) -> Role:
    if not name:
        return Role.UNNAMED
    if is_interpreter:
        for role, pattern in _ROLES:
            if pattern.fullmatch(name):
                return role
    return Role.START if _START.fullmatch(name) else Role.CODE


_ROLES = (
    (Role.EVAL, _EVAL),
    (Role.LOCK, _LOCK),
    (Role.COLLECTOR, _COLLECTOR),
    (Role.GLUE, _GLUE),
)


def _read_objects(aligned: Aligned, source: str) -> dict[int, _Object]:
    table = aligned.table(f"{source}_objects")
    columns = (table.text("kind"), table.text("path"), table.text("build_id"))
    found = {}
    for number, kind, path, build_id in zip(
        table.integers("object").tolist(), *columns, strict=True
    ):
        file = _LABELS.get(kind) or path.removesuffix(_DELETED) or build_id or "?"
        found[number] = _Object(kind, file)
    return found


def _read_names(aligned: Aligned, source: str) -> dict[tuple[int, int], str]:
    """The names that were found, without what compilers append to them."""
    table = aligned.table("native_names")
    columns = (
        table.text("source"),
        table.integers("object").tolist(),
        table.integers("offset").tolist(),
        table.text("function"),
        table.text("note"),
    )
    return {
        (number, offset): _COPY.sub("", name) or name
        for whose, number, offset, name, note in zip(*columns, strict=True)
        if whose == source and not note
    }
