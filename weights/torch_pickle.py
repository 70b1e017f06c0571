"""Reads the pickles inside PyTorch's checkpoints as data. An interpreter of its own for the few opcodes that state
dicts need: it imports nothing and calls nothing that a file names, so no file can make it run code. What stands for
anything but tensors and plain data becomes an Unknown with its name, whatever is done to it. Standard library only."""

import pickletools
from dataclasses import dataclass

MOST_STEPS = 5_000_000  # opcodes, and values that calls copy; a state dict of 1000 tensors has 50,000

# torch's storage types -> the element: a NumPy code, or bf16, which NumPy does not have.
STORAGES = {"torch.DoubleStorage": "f8", "torch.FloatStorage": "f4", "torch.HalfStorage": "f2",
            "torch.BFloat16Storage": "bf16", "torch.LongStorage": "i8", "torch.IntStorage": "i4",
            "torch.ShortStorage": "i2", "torch.CharStorage": "i1", "torch.ByteStorage": "u1", "torch.BoolStorage": "b1"}
TENSORS = {name.replace("Storage", "Tensor") for name in STORAGES}  # how PyTorch 0.1 pickled a tensor


class CheckpointError(Exception):
    """What is wrong and what to do about it; `usage` where the command line is at fault, not the file."""

    def __init__(self, what, hint, usage=False):
        super().__init__(f"{what} ({hint})")
        self.what, self.hint, self.usage = what, hint, usage


def printable(text, most=100):
    """A name from a file as it can be shown on a terminal: no control characters, not endless."""
    text = str(text)
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= most else shown[:most] + "…"


@dataclass(frozen=True)
class Storage:
    """A run of elements in the file: `length` of them from `start` on, of the `count` that the record `key` holds."""
    key: str
    element: str
    count: int
    start: int
    length: int


@dataclass
class Tensor:
    """A view of a storage, in elements. Blank (storage None) until an old pickle's BUILD fills it."""
    storage: Storage = None
    offset: int = 0
    size: tuple = ()
    stride: tuple = ()

    def fill(self, storage, offset, size, stride):
        if not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage")
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)
        return self


@dataclass(frozen=True)
class Global:
    """A name that the pickle would import. It stays a name."""
    name: str


@dataclass(frozen=True)
class Unknown:
    """An object of a class that is not known here, or that class: argparse.Namespace, a NumPy scalar, os.system."""
    name: str


MARK = object()


def refuse(name):
    raise CheckpointError(f"it asks for '{printable(name)}', which is neither a tensor nor plain data; nothing was run",
                          "save the weights alone, in PyTorch: torch.save(model.state_dict(), 'weights.pth')")


def whole(*numbers):
    """True for non-negative integers that fit int64 (bool is none)."""
    return all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)


def make_storage(saved):
    """The persistent id ("storage", type, key, location, count[, view]); a view is (key, start, length) or None."""
    if type(saved) is not tuple or len(saved) not in (5, 6):
        raise ValueError("a persistent id that is no storage")
    kind, storage_type, key, _, count, *view = saved
    if kind != "storage" or not isinstance(storage_type, Global) or type(key) is not str or not whole(count):
        raise ValueError("a persistent id that is no storage")
    if storage_type.name not in STORAGES:
        refuse(storage_type.name)
    _, start, length = view[0] if view and view[0] else (key, 0, count)
    if not whole(start, length) or start + length > count:
        raise ValueError(f"a view beyond the storage {printable(key)}")
    return Storage(key, STORAGES[storage_type.name], count, start, length)


def make_dict(items=()):
    """OrderedDict(): empty, or, from Python 2, with a list of pairs."""
    out = {}
    for key, value in items:
        put(out, key, value)
    return out


def put(target, key, value):
    if isinstance(target, Unknown):
        return
    # Tuples are no keys here: hashing nested shared ones takes exponential time.
    if type(target) is not dict or type(key) not in (str, int, float, bool, bytes, type(None)):
        raise ValueError("a dict with keys that are neither text nor numbers")
    target[key] = value


def make_parameter(data=None, *_):
    return Tensor() if data is None else data


# The calls that are understood: each builds data from data.
BUILDERS = {
    "collections.OrderedDict": make_dict,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": lambda *a: Tensor().fill(*a[:4]),
    "torch._utils._rebuild_tensor_v2": lambda *a: Tensor().fill(*a[:4]),  # then requires_grad, hooks, metadata
    "torch._utils._rebuild_parameter": make_parameter,
    "torch.nn.parameter.Parameter": make_parameter,
    **{name: Tensor for name in TENSORS},
}
KNOWN = {*BUILDERS, *STORAGES}

VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
          "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": MARK}
IGNORED = {"PROTO", "FRAME"}
CODE = {"EXT1", "EXT2", "EXT4"}  # these make objects, too; state dicts have none


class Machine:
    """The stack and memo of one pickle; the methods op_* are opcodes, with pickletools' argument."""

    def __init__(self, storages):
        self.stack, self.memo, self.steps, self.storages = [], {}, 0, storages

    def spend(self, steps):
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise ValueError(f"more than {MOST_STEPS} steps")

    def step(self, name, argument):
        self.spend(1)
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in CODE:
            refuse(str(argument or name).replace(" ", "."))
        elif name not in IGNORED:
            operation = getattr(self, "op_" + name.lower(), None)
            if operation is None:
                raise CheckpointError(f"its pickle uses the opcode {name}, which state dicts do not need",
                                      "save it again in PyTorch with torch.save(model.state_dict(), 'weights.pth')")
            operation(argument)

    def pop_mark(self):
        at = len(self.stack) - 1
        while self.stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        items = self.stack[at + 1:]
        del self.stack[at:]
        return items

    def pop_tuple(self, count):
        if len(self.stack) < count:
            raise ValueError("too few values")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(items)

    def op_pop(self, _):
        self.stack.pop()

    def op_pop_mark(self, _):
        self.pop_mark()

    def op_empty_list(self, _):
        self.stack.append([])

    def op_empty_dict(self, _):
        self.stack.append({})

    def op_tuple(self, _):
        self.stack.append(tuple(self.pop_mark()))

    def op_tuple1(self, _):
        self.pop_tuple(1)

    def op_tuple2(self, _):
        self.pop_tuple(2)

    def op_tuple3(self, _):
        self.pop_tuple(3)

    def op_append(self, _):
        self.extend([self.stack.pop()])

    def op_appends(self, _):
        self.extend(self.pop_mark())

    def extend(self, items):
        if isinstance(self.stack[-1], Unknown):
            return
        if type(self.stack[-1]) is not list:
            raise ValueError("items for what is no list")
        self.stack[-1].extend(items)

    def op_setitem(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        put(self.stack[-1], key, value)

    def op_setitems(self, _):
        items = self.pop_mark()
        if len(items) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            put(self.stack[-1], key, value)

    def op_binput(self, at):
        self.memo[at] = self.stack[-1]

    op_long_binput = op_binput

    def op_memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def op_binget(self, at):
        self.stack.append(self.memo[at])

    op_long_binget = op_binget

    def op_global(self, argument):
        self.push_global(argument.replace(" ", ".", 1))

    def op_stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError("a name that is no text")
        self.push_global(f"{module}.{name}")

    def push_global(self, name):
        self.stack.append(Global(name) if name in KNOWN else Unknown(name))

    def op_binpersid(self, _):
        storage = make_storage(self.stack.pop())
        record = storage.element, storage.count
        if self.storages.setdefault(storage.key, record) != record:
            raise ValueError(f"the storage {printable(storage.key)} has two types or sizes")
        self.stack.append(storage)

    def op_reduce(self, _):
        arguments, made = self.stack.pop(), self.stack.pop()
        if isinstance(made, Unknown):
            self.stack.append(made)
            return
        if type(arguments) is not tuple or not isinstance(made, Global) or made.name not in BUILDERS:
            raise ValueError("a call of what is no function")
        self.spend(len(arguments) + sum(len(a) for a in arguments if isinstance(a, (tuple, list))))
        self.stack.append(BUILDERS[made.name](*arguments))

    op_newobj = op_reduce

    def op_newobj_ex(self, _):
        self.stack.pop()
        self.op_reduce(None)

    def op_inst(self, argument):
        self.pop_mark()
        self.stack.append(Unknown(argument.replace(" ", ".", 1)))

    def op_obj(self, _):
        made = self.pop_mark()[0]
        self.stack.append(made if isinstance(made, Unknown) else Unknown("an object"))

    def op_build(self, _):
        """The attributes of an object. Those of a dict (state_dict's _metadata) mean nothing here. Tensors of PyTorch
        0.1 have (storage, offset, size, stride), its parameters (data, grad, hooks, requires_grad, volatile)."""
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, Tensor) and type(state) is tuple and len(state) in (4, 5):
            data = state[0]
            made.fill(*((data.storage, data.offset, data.size, data.stride) if isinstance(data, Tensor) else state[:4]))
        elif not isinstance(made, (dict, Tensor, Unknown)):
            raise ValueError("attributes of what is no object")


def read_pickle(stream, storages=None):
    """One pickle's value, from where the stream (bytes or an open file) stands: dicts, lists, tuples, text, numbers,
    None, Tensor and Unknown. A stream is left behind the pickle's end. `storages`, a dict, gets key -> (element, count) of every
    storage that is mentioned."""
    machine = Machine({} if storages is None else storages)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as problem:
        raise CheckpointError(f"its pickle is damaged: {printable(problem)}", "copy or download it again") from None
    raise AssertionError("genops ends with STOP or an error")
