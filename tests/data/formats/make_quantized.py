#!/usr/bin/env python3
"""Writes quantized.safetensors and quantized.json: small matrices in the formats
of GPTQ, AWQ and bitsandbytes beside the weights that they stand for, computed
here one element at a time from the formats' definitions. Needs nothing but the
standard library; the result is deterministic.

Case C has a quantization_config in the JSON file, the tensors of a linear layer
"C.qweight", "C.weight.absmax" and so on, and "C.expected", fp32 (out, in)."""

import json
import pathlib
import random
import struct

HERE = pathlib.Path(__file__).parent
OUT, IN = 32, 64
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # nibble i of a word holds this column

NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
       -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
       0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
       0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
       0.7229568362236023, 1.0)
FP4 = tuple(sign * x for sign in (1.0, -1.0)
            for x in (0, 0.0625, 8, 12, 4, 6, 2, 3))


def fp32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def fp16(x):
    return struct.unpack("<e", struct.pack("<e", x))[0]


def pack(codes, bits):
    """A list of codes as 32-bit words, lowest bits first."""
    stream = 0
    for i, code in enumerate(codes):
        stream |= code << (i * bits)
    words = (len(codes) * bits + 31) // 32
    return [(stream >> (32 * w)) & 0xFFFFFFFF for w in range(words)]


def transpose(rows):
    return [list(column) for column in zip(*rows)]


class File:
    def __init__(self):
        self.header, self.data, self.configs = {}, b"", {}

    def add(self, name, dtype, code, shape, values):
        flat = list(values)
        data = struct.pack(f"<{len(flat)}{code}", *flat)
        end = len(self.data) + len(data)
        self.header[name] = {"dtype": dtype, "shape": shape,
                             "data_offsets": [len(self.data), end]}
        self.data += data

    def add_rows(self, name, dtype, code, rows):
        self.add(name, dtype, code, [len(rows), len(rows[0])],
                 [x for row in rows for x in row])

    def write(self):
        text = json.dumps(self.header).encode()
        text += b" " * (-len(text) % 8)
        (HERE / "quantized.safetensors").write_bytes(
            struct.pack("<Q", len(text)) + text + self.data)
        (HERE / "quantized.json").write_text(
            json.dumps(self.configs, indent=1) + "\n")


def grouped(rng, bits, group, symmetric, act_order):
    """Codes (in, out), and scales and zero points (groups, out)."""
    groups = IN // group
    most = 2 ** bits - 1
    index = [i // group for i in range(IN)]
    if act_order:
        rng.shuffle(index)
    codes = [[rng.randint(0, most) for _ in range(OUT)] for _ in range(IN)]
    scales = [[fp16(rng.uniform(0.001, 0.1)) for _ in range(OUT)]
              for _ in range(groups)]
    zeros = [[2 ** (bits - 1) if symmetric else rng.randint(1, most)
              for _ in range(OUT)] for _ in range(groups)]
    weights = [[fp32(scales[index[i]][c] * (codes[i][c] - zeros[index[i]][c]))
                for i in range(IN)] for c in range(OUT)]
    return index, codes, scales, zeros, weights


def gptq(file, rng, name, bits, group, symmetric, act_order, version):
    index, codes, scales, zeros, weights = grouped(rng, bits, group, symmetric,
                                                   act_order)
    less = 1 if version == "gptq" else 0
    qweight = transpose([pack(column, bits) for column in transpose(codes)])
    qzeros = [pack([z - less for z in row], bits) for row in zeros]
    file.add_rows(f"{name}.qweight", "I32", "I", qweight)
    file.add_rows(f"{name}.qzeros", "I32", "I", qzeros)
    file.add_rows(f"{name}.scales", "F16", "e", scales)
    file.add(f"{name}.g_idx", "I32", "i", [IN], index)
    file.add_rows(f"{name}.expected", "F32", "f", weights)
    file.configs[name] = {
        "quant_method": "gptq", "bits": bits, "desc_act": act_order,
        "group_size": -1 if group == IN else group, "sym": symmetric,
        "checkpoint_format": version}


def awq(file, rng, name):
    _, codes, scales, zeros, weights = grouped(rng, 4, 32, False, False)

    def words(row):
        return [pack([row[8 * w + i] for i in AWQ_ORDER], 4)[0]
                for w in range(OUT // 8)]

    file.add_rows(f"{name}.qweight", "I32", "I", [words(r) for r in codes])
    file.add_rows(f"{name}.qzeros", "I32", "I", [words(r) for r in zeros])
    file.add_rows(f"{name}.scales", "F16", "e", scales)
    file.add_rows(f"{name}.expected", "F32", "f", weights)
    file.configs[name] = {"quant_method": "awq", "bits": 4, "group_size": 32,
                          "zero_point": True, "version": "gemm"}


def nested_map():
    """The signed dynamic 8-bit map."""
    values = [0.0, 1.0]
    for e in range(7):
        steps = 2 ** e
        for i in range(steps):
            middle = 0.1 + 0.9 * (i + 0.5) / steps
            values += [middle * 10 ** (e - 6), -middle * 10 ** (e - 6)]
    return [fp32(x) for x in sorted(values)]


def four_bit(file, rng, name, kind, double):
    table = NF4 if kind == "nf4" else [fp32(x / 12) for x in FP4]
    count = OUT * IN
    codes = [rng.randint(0, 15) for _ in range(count)]
    state = {"quant_type": kind, "blocksize": 64, "dtype": "bfloat16",
             "shape": [OUT, IN]}
    weight = f"{name}.weight"
    if double:
        small = [rng.randint(0, 255) for _ in range(count // 64)]
        dynamic, offset = nested_map(), fp32(0.0312)
        scale = fp32(0.0278)
        absmax = [fp32(fp32(dynamic[x] * scale) + offset) for x in small]
        state.update(nested_blocksize=256, nested_dtype="float32",
                     nested_offset=offset)
        file.add(f"{weight}.absmax", "U8", "B", [len(small)], small)
        file.add(f"{weight}.nested_absmax", "F32", "f", [1], [scale])
        file.add(f"{weight}.nested_quant_map", "F32", "f", [256], dynamic)
    else:
        absmax = [fp32(rng.uniform(0.01, 0.2)) for _ in range(count // 64)]
        file.add(f"{weight}.absmax", "F32", "f", [len(absmax)], absmax)
    pairs = [codes[i] << 4 | codes[i + 1] for i in range(0, count, 2)]
    file.add(weight, "U8", "B", [count // 2, 1], pairs)
    file.add(f"{weight}.quant_map", "F32", "f", [16], table)
    text = json.dumps(state).encode()
    file.add(f"{weight}.quant_state.bitsandbytes__{kind}", "U8", "B",
             [len(text)], text)
    file.add(f"{name}.expected", "F32", "f", [OUT, IN],
             [fp32(table[code] * absmax[i // 64])
              for i, code in enumerate(codes)])
    file.configs[name] = {
        "quant_method": "bitsandbytes", "load_in_4bit": True,
        "load_in_8bit": False, "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": double}


def eight_bit(file, rng, name):
    codes = [[rng.randint(-127, 127) for _ in range(IN)] for _ in range(OUT)]
    scb = [fp32(rng.uniform(0.1, 2)) for _ in range(OUT)]
    file.add_rows(f"{name}.weight", "I8", "b", codes)
    file.add(f"{name}.SCB", "F32", "f", [OUT], scb)
    file.add_rows(f"{name}.expected", "F32", "f",
                  [[fp32(fp32(q * s) / 127) for q in row]
                   for row, s in zip(codes, scb)])
    file.configs[name] = {"quant_method": "bitsandbytes", "load_in_8bit": True}


def main():
    rng = random.Random(20240701)
    file = File()
    for bits in (2, 3, 4, 8):
        gptq(file, rng, f"gptq-{bits}", bits, 32, True, False, "gptq")
        gptq(file, rng, f"gptq-{bits}-asym", bits, 32, False, False, "gptq")
    gptq(file, rng, "gptq-4-actorder", 4, 32, True, True, "gptq")
    gptq(file, rng, "gptq-3-v2", 3, 32, False, False, "gptq_v2")
    gptq(file, rng, "gptq-4-whole", 4, 64, True, False, "gptq")
    gptq(file, rng, "gptq-4-group16", 4, 16, True, False, "gptq")
    awq(file, rng, "awq")
    for kind in ("nf4", "fp4"):
        four_bit(file, rng, kind, kind, False)
        four_bit(file, rng, f"{kind}-double", kind, True)
    eight_bit(file, rng, "int8")
    file.write()


if __name__ == "__main__":
    main()
