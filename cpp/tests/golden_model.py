"""The golden model through the engines of a plugin: logits and every intermediate of bitnet.cpp's own run.

Used by golden.py. Standard library only.
"""

import array
import ctypes
import struct
from ctypes import POINTER, byref, c_char_p, c_float, c_uint32, c_uint64, c_void_p

OK = 0
F32, F16, I2_S = 0, 1, 36
# Every position within this of the real program's logits, whose standard deviation is 9.1.
LOGITS_WITHIN = 1e-3
# Intermediates of layer 0, of values up to some tens: float operations differ in their last bits.
NODES_WITHIN = 1e-4


class Model(ctypes.Structure):
    _fields_ = [(name, c_uint32) for name in ("activation", "rope", "sub_norms", "numerics", "kv_type", "threads")]
    _fields_ += [("rope_base", c_float), ("norm_eps", c_float)]
    _fields_ += [(name, c_uint64) for name in ("hidden", "ffn", "layers", "heads", "kv_heads", "head_dim", "vocab",
                                               "context", "batch", "outputs")]


class Tensor(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("type", c_uint32), ("bm", c_uint32), ("bk", c_uint32), ("by", c_uint32),
                ("rows", c_uint64), ("cols", c_uint64), ("bytes", c_void_p), ("n_bytes", c_uint64)]


class Reader:
    """Metadata and tensors of a GGUF file of version 3."""

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, data):
        self.data, self.at = data, 4
        version, tensors, pairs = self.take("IQQ")
        assert data[:4] == b"GGUF" and version == 3
        self.metadata = {}
        for _ in range(pairs):
            key = self.text()
            self.metadata[key] = self.value(*self.take("I"))
        infos = []
        for _ in range(tensors):
            name, (dims,) = self.text(), self.take("I")
            infos.append((name, self.take("Q" * dims), *self.take("IQ")))
        start = -(-self.at // 32) * 32
        self.tensors = {name: (shape, kind, start + offset) for name, shape, kind, offset in infos}

    def take(self, layout):
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def text(self):
        (length,) = self.take("Q")
        self.at += length
        return self.data[self.at - length:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            element, count = self.take("IQ")
            return [self.value(element) for _ in range(count)]
        return self.take(self.SCALARS[kind])[0]


def n_bytes(kind, n):
    return {F32: 4 * n, F16: 2 * n, I2_S: n // 4 + 32}[kind]


def tiny_model(file, threads):
    meta = {key.removeprefix("bitnet."): value for key, value in file.metadata.items()}
    heads = meta["attention.head_count"]
    return Model(activation=1, rope=1, sub_norms=1, numerics=1, kv_type=F16, threads=threads,
                 rope_base=meta["rope.freq_base"], norm_eps=meta["attention.layer_norm_rms_epsilon"],
                 hidden=meta["embedding_length"], ffn=meta["feed_forward_length"], layers=meta["block_count"],
                 heads=heads, kv_heads=meta["attention.head_count_kv"], head_dim=meta["embedding_length"] // heads,
                 vocab=meta["vocab_size"], context=16, batch=12, outputs=12)


def tensors_of(file, buffer):
    """The tensors of the contract, whose bytes stand in `buffer`, the whole file."""
    base = ctypes.addressof(buffer)
    return [Tensor(name.encode(), kind, 0, 0, 0, shape[1] if len(shape) > 1 else 1, shape[0], base + offset,
                   n_bytes(kind, shape[0] * (shape[1] if len(shape) > 1 else 1)))
            for name, (shape, kind, offset) in file.tensors.items()]


def floats(data):
    return array.array("f", data)


def distance(a, b):
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b))


def per_position(ours, golden, vocab):
    return [distance(ours[i:i + vocab], golden[i:i + vocab]) for i in range(0, len(golden), vocab)]


def play(check, api, what, gguf, logits, nodes):
    """Runs the prompt all at once and one token at a time, with one, two and three threads; answers the bits."""
    data = gguf.read_bytes()
    file, buffer = Reader(data), ctypes.create_string_buffer(data, len(data))
    prompt = array.array("q", logits["prompt"])
    tokens = (c_uint32 * len(prompt))(*prompt)
    tensors = tensors_of(file, buffer)
    seen = {}
    for threads in (1, 2, 3):
        model = tiny_model(file, threads)
        n, vocab = len(prompt), model.vocab
        engine = c_void_p()
        status = api.engine_create(byref(model), (Tensor * len(tensors))(*tensors), len(tensors), byref(engine))
        check(f"{what} engine_create", status == OK)
        if status != OK:
            return None
        taps = {}
        for name, golden in nodes.items():
            if ").RESHAPE" in name:  # the same values under another shape
                continue
            taps[name] = (c_float * (len(golden) // 4))()
            check(f"{what} tap {name}", api.engine_tap(engine, name.encode(), taps[name], len(taps[name])) == OK)
        out = (c_float * (n * vocab))()
        check(f"{what} prefill", api.engine_prefill(engine, tokens, n, n) == OK)
        check(f"{what} logits", api.engine_logits(engine, out, n * vocab) == OK)
        batch = floats(bytes(out))
        check(f"{what} taps end", api.engine_tap(engine, None, None, 0) == OK)
        check(f"{what} reset", api.engine_reset(engine) == OK)
        step = array.array("f")
        for token in prompt:
            check(f"{what} decode", api.engine_decode(engine, token) == OK)
            check(f"{what} logits", api.engine_logits(engine, out, vocab) == OK)
            step.extend(out[:vocab])
        api.engine_free(engine)
        seen[threads] = (batch.tobytes(), step.tobytes())
        for mode, ours in (("batch", batch), ("step", step)):
            distances = per_position(ours, floats(logits[mode]), vocab)
            if threads == 1:
                print(f"{what} {mode}: largest distance by position", " ".join(f"{d:.1e}" for d in distances))
            check(f"{what} {mode} logits", max(distances) <= LOGITS_WITHIN)
        worst = {name: distance(floats(bytes(dst)), floats(nodes[name])) for name, dst in taps.items()}
        for name, far in worst.items():
            check(f"{what} {name}: {far:.1e}", far <= (LOGITS_WITHIN if "result" in name else NODES_WITHIN))
        if threads == 1:
            name = max(worst, key=worst.get)
            print(f"{what}: {len(worst)} intermediates, the farthest {name} by {worst[name]:.1e}")
    check(f"{what}: the same bits for 1, 2 and 3 threads", seen[1] == seen[2] == seen[3])
    return seen[1]


def signatures(function):
    """Fields of bnb_api from matmul_free on; missing ones are NULL for an older callee."""
    return [
        ("quiesce", ctypes.CFUNCTYPE(None)),
        ("matmul_bytes", ctypes.CFUNCTYPE(c_uint64, c_void_p)),
        ("float_prepare", function(c_void_p, c_uint64, c_uint32, POINTER(c_void_p))),
        ("float_matmul", function(c_void_p, c_void_p, c_uint64, c_uint64, c_void_p, c_uint64)),
        ("float_free", ctypes.CFUNCTYPE(None, c_void_p)),
        ("engine_create", function(POINTER(Model), POINTER(Tensor), c_uint64, POINTER(c_void_p))),
        ("engine_prefill", function(c_void_p, c_void_p, c_uint64, c_uint64)),
        ("engine_decode", function(c_void_p, c_uint32)),
        ("engine_logits", function(c_void_p, c_void_p, c_uint64)),
        ("engine_tap", function(c_void_p, c_char_p, c_void_p, c_uint64)),
        ("engine_reset", function(c_void_p)),
        ("engine_free", ctypes.CFUNCTYPE(None, c_void_p)),
    ]
