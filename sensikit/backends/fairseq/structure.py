"""The structure of a checkpoint, walked before anything is made of it: its opcodes say what a pickle asks for.

torch's restricted unpickler runs no code, and still makes what it is told to: an array of 3 GB, a tuple that doubles
sixty times, a storage that reaches into its neighbour. Here the opcodes are followed on a stack of descriptions, which
cost next to nothing, and all but a closed vocabulary is refused: plain values, their containers, and dense tensors.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sensikit.backends.fairseq.values import shown
from sensikit.errors import CheckpointError

MOST_OPCODES = 1_000_000
"""A checkpoint of 50 layers with the optimizer's state has some 60,000."""

MOST_PARTS = 4_000_000
"""Of a value and all that is in it, what is shared counted wherever it appears: what a reader of it would see."""

DEEPEST = 100
"""Containers within each other."""

WIDTHS = {
    f"torch.{kind}Storage": width
    for width, kinds in {
        1: ("Byte", "Char", "Bool"), 2: ("Half", "BFloat16", "Short"), 4: ("Float", "Int"),
        8: ("Double", "Long", "ComplexFloat"), 16: ("ComplexDouble",),
    }.items()
    for kind in kinds
}  # fmt: skip
"""Bytes of an element, by the storages that a tensor may have."""

TENSOR, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
NAMESPACE, ORDERED, ENCODE = "argparse.Namespace", "collections.OrderedDict", "_codecs.encode"
GLOBALS = frozenset({TENSOR, PARAMETER, NAMESPACE, ORDERED, ENCODE, *WIDTHS})

SETTINGS_OF = ("omegaconf", "hydra", "fairseq")
"""Libraries whose objects honest checkpoints hold too, where settings were not saved as plain values."""

ATOMS = frozenset(
    "NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING".split()  # noqa: SIM905
)
CONTAINERS = {"EMPTY_TUPLE": "tuple", "EMPTY_LIST": "list", "EMPTY_DICT": "dict"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(eq=False, slots=True)
class Part:
    """What would stand on the unpickler's stack: its kind, and what is in it.

    `value` is that of an atom, the name of a global, the parts of a tuple, or the keys of a dict; `size` and `depth`
    are of all within it. One that is `held` by another is complete: what grew afterwards would make the sizes wrong, or
    go in circles.
    """

    kind: str
    value: Any = None
    size: int = 1
    depth: int = 0
    held: bool = False


def check(path: Path, structure: bytes, stored: Mapping[str, int]) -> None:
    """Refuse a pickle (`structure`) that asks for anything but plain values and dense tensors, in bounds.

    `stored` has the bytes of each storage of the archive, by its key.
    """
    walk = _Walk(path, stored)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(structure)):
            if count > MOST_OPCODES:
                walk.refuse(f"has more than {MOST_OPCODES:,} steps of structure around its tensors")
            walk.step(opcode.name, argument)
    # of a pickle that is cut off or makes no sense; a part that is not what its place needs has no such value
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        walk.refuse(f"is not a readable checkpoint ({type(error).__name__} in its structure)")


class _Walk:
    def __init__(self, path: Path, stored: Mapping[str, int]) -> None:
        self.path, self.stored = path, stored
        self.stack: list[Part] = []
        self.marks: list[list[Part]] = []
        self.memo: dict[int, Part] = {}

    def refuse(self, problem: str) -> NoReturn:
        remedy = "nothing of it was run; it must hold plain tensors and settings, as fairseq-train writes"
        raise CheckpointError(self.path, problem, remedy)

    def step(self, name: str, argument: Any) -> None:
        """Do on the stack of descriptions what an opcode does on the unpickler's."""
        stack = self.stack
        if name in ATOMS:
            stack.append(self._atom(argument))
        elif name in CONTAINERS:
            stack.append(Part(CONTAINERS[name], set() if name == "EMPTY_DICT" else ()))
        elif name in TUPLES:
            stack.append(self._filled(Part("tuple"), [stack.pop() for _ in range(TUPLES[name])][::-1]))
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name == "TUPLE":
            items = self._popped()
            self.stack.append(self._filled(Part("tuple"), items))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._popped()
            self._filled(self._last("list"), items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else self._popped()
            if any(key.kind != "atom" for key in items[::2]):
                self.refuse("has a key that is no plain value")
            self._filled(self._last("dict", "ordered"), items).value.update(key.value for key in items[::2])
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "GLOBAL":
            stack.append(Part("global", self._allowed(argument)))
        elif name in ("REDUCE", "NEWOBJ"):
            given, function = stack.pop(), stack.pop()
            stack.append(self._called(name, function.value, given))
        elif name == "BUILD":
            state, built = stack.pop(), self._last("namespace", "ordered")
            if state.kind != "dict" or (built.kind == "ordered" and {*state.value} != {"_metadata"}):
                self.refuse("gives an object attributes that it does not have")
            self._filled(built, [state])
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name not in ("PROTO", "STOP"):
            self.refuse(f"is not a readable checkpoint (opcode {name} in its structure)")

    def _popped(self) -> list[Part]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _last(self, *kinds: str) -> Part:
        part = self.stack[-1]
        if part.kind not in kinds:
            raise TypeError(part.kind)
        return part

    def _atom(self, value: Any) -> Part:
        if isinstance(value, int) and value.bit_length() > 64:
            self.refuse("holds a number of more than 64 bits")
        return Part("atom", value, 1 + (len(value) // 64 if isinstance(value, str | bytes) else 0))

    def _filled(self, part: Part, items: Sequence[Part]) -> Part:
        """Return a container with more in it."""
        if part.held or any(item is part for item in items):
            self.refuse("holds something that contains itself")
        for item in items:
            item.held = True
            part.size += item.size
            part.depth = max(part.depth, item.depth + 1)
        if part.size > MOST_PARTS or part.depth > DEEPEST:
            self.refuse("holds something that unfolds without end (a container within containers)")
        if part.kind == "tuple":
            part.value = tuple(items)
        return part

    def _allowed(self, argument: str) -> str:
        module, _, name = argument.partition(" ")
        name = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if name.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_")) and name not in GLOBALS:
            problem = f"holds a tensor that is not dense ({shown(name.rpartition('_rebuild_')[2])})"
            raise CheckpointError(self.path, problem, "save it as a plain tensor")
        if name not in GLOBALS:
            problem = "contains code or objects ({})".format(shown(name).strip("'"))
            if name.split(".")[0] in SETTINGS_OF:
                remedy = "nothing of it was run; where you trust it, c = torch.load(FILE, weights_only=False), "
                remedy += "c['cfg'] = OmegaConf.to_container(c['cfg'], enum_to_str=True), torch.save(c, NEW)"
                raise CheckpointError(self.path, problem, remedy)
            raise CheckpointError(self.path, problem, "nothing of it was run; do not trust the file")
        return name

    def _called(self, opcode: str, function: Any, given: Part) -> Part:
        """Return what a call of one of `GLOBALS` makes; others, and other arguments, are refused."""
        arguments = given.value if given.kind == "tuple" else None
        kinds = [each.kind for each in arguments or ()]
        if arguments == () and (opcode, function) in (("REDUCE", ORDERED), ("NEWOBJ", NAMESPACE)):
            return Part("ordered" if function == ORDERED else "namespace", set())
        if opcode == "REDUCE" and (function, *kinds[:1]) in ((TENSOR, "storage"), (PARAMETER, "tensor")):
            return self._filled(Part("tensor"), given.value)
        if opcode == "REDUCE" and function == ENCODE and kinds == ["atom", "atom"] and given.value[1].value == "latin1":
            return Part("atom", size=given.size)  # how protocol 2 writes bytes
        return self.refuse(f"makes an object in a way of its own ({shown(function)})")

    def _storage(self, identity: Part) -> Part:
        """Return a storage that is in the file, whole; another dtype or length would be other numbers."""
        parts = [each.value for each in identity.value] if identity.kind == "tuple" else []
        word, kind, key, _, count = parts
        if word != "storage" or kind not in WIDTHS or type(count) is not int:
            raise ValueError(word)
        if self.stored.get(key) != count * WIDTHS[kind]:
            self.refuse(f"says that its storage {shown(key)} has {count} elements, and it has another length")
        return Part("storage")
