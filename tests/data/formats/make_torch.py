#!/usr/bin/env python3
"""Writes torch/archive.bin and torch/old.bin: the same small dict of tensors in
the archive format and in the one before it, pickled by CPython itself with
stand-ins for torch's classes, so that our reader meets a writer that is not
ours. Needs nothing but the standard library; the result is deterministic."""

import collections
import io
import pathlib
import pickle
import struct
import sys
import types
import zipfile

OUT = pathlib.Path(__file__).parent / "torch"


def stand_in(module, name):
    """A class or function that pickles as MODULE.NAME."""
    modules = sys.modules
    if module not in modules:
        modules[module] = types.ModuleType(module)

    def function(*args):
        raise NotImplementedError

    function.__module__, function.__qualname__ = module, name
    function.__name__ = name
    setattr(modules[module], name, function)
    return function


REBUILD_TENSOR = stand_in("torch._utils", "_rebuild_tensor_v2")
REBUILD_PARAMETER = stand_in("torch._utils", "_rebuild_parameter")


class Storage:
    def __init__(self, key, kind, width, data):
        self.key, self.data, self.width = key, data, width
        self.kind = stand_in("torch", kind)
        self.count = len(data) // width


class Tensor:
    def __init__(self, storage, offset, sizes, strides):
        self.args = (storage, offset, sizes, strides, False,
                     collections.OrderedDict())

    def __reduce__(self):
        return REBUILD_TENSOR, self.args


class Parameter(Tensor):
    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        return REBUILD_PARAMETER, (self.tensor, True,
                                   collections.OrderedDict())


class Pickler(pickle._Pickler):
    def __init__(self, out, old):
        super().__init__(out, protocol=2)
        self.old = old

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        head = ("storage", value.kind, value.key, "cpu", value.count)
        return head + (None,) if self.old else head


def state_dict(storages):
    floats, halves, numbers = storages
    tensors = collections.OrderedDict()
    tensors["whole"] = Tensor(floats, 0, (2, 3), (3, 1))
    tensors["transposed"] = Parameter(Tensor(floats, 0, (3, 2), (1, 3)))
    tensors["slice"] = Tensor(halves, 2, (2,), (1,))
    tensors["scalar"] = Tensor(numbers, 0, (), ())
    tensors._metadata = collections.OrderedDict(
        {"": {"version": 1}, "layer": {"version": 2}})
    return tensors


def pickled(value, old):
    out = io.BytesIO()
    Pickler(out, old).dump(value)
    return out.getvalue()


def main():
    bfloats = b"".join(struct.pack("<f", x)[2:] for x in (0, 1, 2, 3))
    storages = [
        Storage("0", "FloatStorage", 4, struct.pack("<6f", *range(6))),
        Storage("1", "BFloat16Storage", 2, bfloats),
        Storage("2", "LongStorage", 8, struct.pack("<q", 7)),
    ]
    OUT.mkdir(exist_ok=True)
    tensors = state_dict(storages)
    with zipfile.ZipFile(OUT / "archive.bin", "w", zipfile.ZIP_STORED) as out:
        def write(name, data):
            out.writestr(zipfile.ZipInfo("archive/" + name), data)

        write("data.pkl", pickled(tensors, old=False))
        write("byteorder", b"little")
        for storage in storages:
            write(f"data/{storage.key}", storage.data)
        write("version", b"3\n")
    with open(OUT / "old.bin", "wb") as out:
        system = {"protocol_version": 1001, "little_endian": True,
                  "type_sizes": {"short": 2, "int": 4, "long": 4}}
        for value in (0x1950A86A20F9469CFC6C, 1001, system, tensors,
                      [storage.key for storage in storages]):
            out.write(pickled(value, old=True))
        for storage in storages:
            out.write(struct.pack("<q", storage.count) + storage.data)


if __name__ == "__main__":
    main()
