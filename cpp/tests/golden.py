"""Plays the golden files, made by the real bitnet.cpp, through plugins that export the contract.

    python3 cpp/tests/golden.py tests/golden library.so [library.so ...]

Standard library only: the arrays are .npy inside .zip, the contract is a C struct.
"""

import ast
import ctypes
import pathlib
import re
import struct
import sys
import zipfile
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_uint32, c_uint64, c_void_p

import golden_model

I2_S, TL1, TL2 = 1, 2, 3
OK = 0


class Layout(ctypes.Structure):
    _fields_ = [("format", c_uint32), ("bm", c_uint32), ("bk", c_uint32), ("by", c_uint32),
                ("rows", c_uint64), ("cols", c_uint64)]


class Weights(ctypes.Structure):
    _fields_ = [("layout", Layout), ("bytes", c_char_p), ("n_bytes", c_uint64), ("scale", c_float)]


def function(*arguments):
    return ctypes.CFUNCTYPE(c_int32, *arguments)


class Api(ctypes.Structure):
    _fields_ = [
        ("abi_major", c_uint32), ("abi_minor", c_uint32), ("struct_size", c_uint64), ("name", c_char_p),
        ("isa", c_char_p), ("build_info", c_void_p), ("capabilities", c_uint64),
        ("available", function(POINTER(c_char_p))),
        ("quantize_weights", function(POINTER(Layout), c_uint32, c_void_p, c_uint64, c_void_p, c_uint64,
                                      POINTER(c_float))),
        ("dequantize_weights", function(POINTER(Weights), c_void_p, c_uint64)),
        ("quantize_activations", function(c_void_p, c_uint64, c_uint64, c_uint64, c_void_p, c_uint64, c_void_p,
                                          c_uint64, c_void_p, c_uint64)),
        ("matmul_prepare", function(POINTER(Weights), c_uint64, c_uint32, POINTER(c_void_p))),
        ("matmul_i8_i32", function(c_void_p, c_void_p, c_uint64, c_uint64, c_void_p, c_uint64)),
        ("linear_f32_f32", function(c_void_p, c_void_p, c_uint64, c_uint64, c_void_p, c_uint64)),
        ("matmul_free", ctypes.CFUNCTYPE(None, c_void_p)),
    ] + golden_model.signatures(function)


def arrays(path):
    """The raw little-endian bytes of each array of an .npz file."""
    out = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            start = 10 + struct.unpack_from("<H", data, 8)[0]
            header = ast.literal_eval(data[10:start].decode("latin1"))
            assert data[:6] == b"\x93NUMPY" and not header["fortran_order"], (path, name)
            out[name.removesuffix(".npy")] = data[start:]
    return out


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, what, holds):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print("FAILED", what)


def floats(data):
    return struct.unpack(f"<{len(data) // 4}f", data)


def check_weights(check, what, api, layout, codes, scale, packed):
    """Codes (None: from the bytes) and packed bytes say the same; answers the weights of the contract."""
    n = layout.rows * layout.cols
    weights = Weights(layout, packed, len(packed), scale)
    if api.dequantize_weights and api.quantize_weights:
        dense = ctypes.create_string_buffer(4 * n)
        check(what + " dequantises", api.dequantize_weights(byref(weights), dense, n) == OK)
        if codes is not None:
            wanted = struct.pack(f"<{n}f", *(c * scale for c in struct.unpack(f"<{n}b", codes)))
            check(what + " codes", dense.raw == wanted or floats(dense.raw) == floats(wanted))
        again, s = ctypes.create_string_buffer(len(packed)), c_float()
        status = api.quantize_weights(byref(layout), 2, dense, n, again, len(packed), byref(s))
        check(what + " packs to the same bytes", status == OK and again.raw == packed and s.value == scale)
    return weights


def check_products(check, what, api, weights, x, q, wanted_dots, wanted_y):
    rows, cols = weights.layout.rows, weights.layout.cols
    n = len(q) // cols
    handle = c_void_p()
    check(what + " prepares", api.matmul_prepare(byref(weights), n, 1, byref(handle)) == OK)
    out = ctypes.create_string_buffer(4 * n * rows)
    check(what + " dots", api.matmul_i8_i32(handle, q, len(q), n, out, n * rows) == OK and
          out.raw == struct.pack(f"<{n * rows}i", *wanted_dots))
    check(what + " y", api.linear_f32_f32(handle, x, n * cols, n, out, n * rows) == OK and out.raw == wanted_y)
    api.matmul_free(handle)


def check_i2s(check, what, api, data, rows, cols):
    layout = Layout(I2_S, 0, 0, 0, rows, cols)
    codes_end = rows * cols // 4
    (scale,) = floats(data["w_scale"][:4])
    packed = data["packed"][:codes_end + 4] + bytes(28)
    weights = check_weights(check, what, api, layout, None, scale, packed)
    n = len(data["x_q8"]) // cols
    q, row_scale, row_sum = (ctypes.create_string_buffer(k) for k in (n * cols, 4 * n, 4 * n))
    if api.quantize_activations:
        status = api.quantize_activations(data["x"], n * cols, n, cols, q, n * cols, row_scale, n, row_sum, n)
        check(what + " activations", status == OK and q.raw == data["x_q8"] and
              row_scale.raw == data["x_scale"] and row_sum.raw == data["x_sum"])
    sums = struct.unpack(f"<{n}i", data["x_sum"])
    dots = [d - sums[i // rows] for i, d in enumerate(struct.unpack(f"<{n * rows}i", data["dot"]))]
    if "overflow" not in what:
        check_products(check, what, api, weights, data["x"], data["x_q8"], dots, data["y"])
        return
    # bitnet.cpp wrapped here; the exact product differs by multiples of 2^16 and must differ somewhere.
    handle, out = c_void_p(), ctypes.create_string_buffer(4 * n * rows)
    check(what + " prepares", api.matmul_prepare(byref(weights), n, 1, byref(handle)) == OK)
    check(what + " runs", api.matmul_i8_i32(handle, data["x_q8"], n * cols, n, out, n * rows) == OK)
    ours = struct.unpack(f"<{n * rows}i", out.raw)
    check(what + " differs by wraps", ours != tuple(dots) and
          all((a - b) % 65536 == 0 for a, b in zip(ours, dots)))
    api.matmul_free(handle)


def check_tl2(check, what, api, data, rows, cols, bm, bk):
    (scale,) = floats(data["w_scale"][:4])
    weights = check_weights(check, what, api, Layout(TL2, bm, bk, 8, rows, cols), data["q"], scale,
                            data["packed"])
    w, q = struct.unpack(f"<{rows * cols}b", data["q"]), struct.unpack(f"<{cols}b", data["x_q"])
    dots = [sum(a * b for a, b in zip(w[r * cols:(r + 1) * cols], q)) for r in range(rows)]
    check_products(check, what, api, weights, data["x"], data["x_q"], dots, data["y"])


def check_tl1(check, what, api, data, rows, cols, bm, bk, row_block):
    packed = data["packed"][:rows * cols // 4] + struct.pack("<f", 0.5) + bytes(28)
    check_weights(check, what, api, Layout(TL1, bm, bk, 256 // row_block, rows, cols), data["q"], 0.5, packed)


def backends(library):
    entry = ctypes.CDLL(str(pathlib.Path(library).resolve())).bitnet_backend_v1
    entry.restype, entry.argtypes = POINTER(Api), [c_uint32]
    index = 0
    while entry(index):
        yield entry(index).contents
        index += 1


def main(folder, libraries):
    check, logits = Checks(), None  # bits of the engines' logits, the same for all
    for library in libraries:
        for api in backends(library):
            why, played, before = c_char_p(), 0, check.failed
            if api.available(byref(why)) != OK:
                print(f"skipped {api.name.decode()}: {why.value.decode()}")
                continue
            for path in sorted(pathlib.Path(folder).glob("*.npz")):
                what = f"{api.name.decode()} {path.stem}"
                numbers = {k: int(v) for k, v in re.findall(r"_([a-z]+)(\d+)", path.stem)}
                data = arrays(path)
                if path.stem.startswith("i2s") and api.capabilities & 1:
                    check_i2s(check, what, api, data, numbers["m"], numbers["k"])
                elif path.stem.startswith("tl2") and api.capabilities & 4:
                    check_tl2(check, what, api, data, numbers["m"], numbers["k"], numbers["bm"], numbers["bk"])
                elif path.stem.startswith("tl1") and api.capabilities & 2:
                    check_tl1(check, what, api, data, numbers["m"], numbers["k"], numbers["bm"], numbers["bk"],
                              numbers["bmm"])
                else:
                    continue
                played += 1
            # Fields beyond the callee's struct_size are not there to be read.
            if api.struct_size >= Api.engine_free.offset + 8 and api.engine_create:
                folder_path = pathlib.Path(folder)
                bits = golden_model.play(check, api, api.name.decode(), folder_path / "tiny-i2s.gguf",
                                         arrays(folder_path / "tiny_logits.npz"),
                                         arrays(folder_path / "tiny_nodes_layer0.npz"))
                check(f"{api.name.decode()} logits are those of the engines before", logits in (None, bits))
                logits = bits
                played += 1
            check(f"{api.name.decode()} played golden files", played > 0)
            print(f"{api.name.decode()}: {played} golden files, {check.failed - before} failures")
    print(f"{check.passed} passed, {check.failed} failed")
    return 1 if check.failed or not check.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
