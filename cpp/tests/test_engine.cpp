// Whole models against naive_model.hpp, bit for bit: logits and every intermediate, in chunks and steps, over
// every option of the contract, one to three threads. Then hostile arguments.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "backends.hpp"
#include "bitnet_backend.h"
#include "check.hpp"
#include "naive_model.hpp"

namespace {

constexpr float kUntouched = 12345.0f;

struct Options {
    uint32_t activation, rope, sub_norms, numerics, kv_type;
    uint32_t embedding, head; // types; head 0xff: tied
    uint32_t weights;         // 0: I2_S, 1: TL1 and TL2, 2: mixed within one layer
    bool scales;
};

std::vector<float> norm_weights(size_t n) {
    std::vector<float> w(n);
    for (float &value : w) {
        value = 1.0f + random_float(0.5f);
    }
    return w;
}

naive::Ternary ternary(uint64_t rows, uint64_t cols, uint32_t format, bool output_scale) {
    const bnb_layout layouts[] = {{BNB_FORMAT_I2_S, 0, 0, 0, rows, cols},
                                  {BNB_FORMAT_TL1, 32, 64, 8, rows, cols},
                                  {BNB_FORMAT_TL2, 32, 96, 8, rows, cols}};
    naive::Ternary t = {layouts[format], std::vector<int8_t>(rows * cols), 0.04f, 1.0f};
    for (int8_t &code : t.codes) {
        code = static_cast<int8_t>(static_cast<int>(random_bits() % 3) - 1);
    }
    t.output_scale = output_scale ? 1.25f + random_float(0.5f) : 1.0f;
    return t;
}

naive::WholeModel make_model(const Options &o) {
    const uint64_t hidden = 256, ffn = 384, heads = 6, kv_heads = 2, d = 32, vocab = 50;
    naive::WholeModel m = {};
    m.shape = {o.activation, o.rope, o.sub_norms, o.numerics, o.kv_type, 1,     10000.0f, 1e-5f, hidden,
               ffn,          2,      heads,       kv_heads,   d,         vocab, 24,       9,     9};
    // attn_output needs heads * d columns that every format can hold: 192 is none for I2_S and TL2.
    m.shape.heads = 8;
    m.embedding = naive::float_tensor(o.embedding, vocab, hidden, random_bits);
    if (o.head != 0xff) {
        m.head = naive::float_tensor(o.head, vocab, hidden, random_bits);
    }
    m.result_norm = norm_weights(hidden);
    size_t next = 0;
    const auto linear = [&](uint64_t rows, uint64_t cols) {
        const uint32_t format = o.weights == 0 ? 0 : o.weights == 1 ? 1 + next % 2 : next % 3;
        ++next;
        return ternary(rows, cols, format, o.scales && next % 2 == 0);
    };
    const uint64_t width = m.shape.heads * d;
    for (size_t layer = 0; layer < m.shape.layers; ++layer) {
        naive::ModelLayer l = {norm_weights(hidden),         norm_weights(width),
                               norm_weights(hidden),         norm_weights(ffn),
                               linear(width, hidden),        linear(kv_heads * d, hidden),
                               linear(kv_heads * d, hidden), linear(hidden, width),
                               linear(ffn, hidden),          linear(ffn, hidden),
                               linear(hidden, ffn)};
        m.layers.push_back(l);
    }
    m.reset();
    return m;
}

// The tensors of the contract over their own copies of names and bytes, which stand at odd addresses.
struct Tensors {
    explicit Tensors(const naive::WholeModel &m) {
        add_floats("token_embd.weight", m.embedding);
        if (!m.head.bytes.empty()) {
            add_floats("output.weight", m.head);
        }
        add_norm("output_norm.weight", m.result_norm);
        for (size_t i = 0; i < m.layers.size(); ++i) {
            const naive::ModelLayer &l = m.layers[i];
            const std::string p = "blk." + std::to_string(i) + ".";
            add_norm(p + "attn_norm.weight", l.attention_norm);
            add_norm(p + "ffn_norm.weight", l.ffn_norm);
            if (m.shape.sub_norms != 0) {
                add_norm(p + "attn_sub_norm.weight", l.attention_sub_norm);
                add_norm(p + "ffn_sub_norm.weight", l.ffn_sub_norm);
            }
            add_ternary(p + "attn_q", l.q);
            add_ternary(p + "attn_k", l.k);
            add_ternary(p + "attn_v", l.v);
            add_ternary(p + "attn_output", l.o);
            add_ternary(p + "ffn_gate", l.gate);
            add_ternary(p + "ffn_up", l.up);
            add_ternary(p + "ffn_down", l.down);
        }
    }

    void add(const std::string &name, uint32_t type, const bnb_layout &l, const std::vector<uint8_t> &bytes) {
        names.push_back(name);
        memory.emplace_back(1, uint8_t{0});
        memory.back().insert(memory.back().end(), bytes.begin(), bytes.end());
        list.push_back({nullptr, type, l.bm, l.bk, l.by, l.rows, l.cols, nullptr, bytes.size()});
    }
    void add_floats(const std::string &name, const naive::FloatTensor &t) {
        add(name, t.type, {0, 0, 0, 0, t.rows, t.cols}, t.bytes);
    }
    void add_norm(const std::string &name, const std::vector<float> &values) {
        std::vector<uint8_t> bytes;
        for (const float value : values) {
            naive::append(bytes, value);
        }
        add(name, BNB_TYPE_F32, {0, 0, 0, 0, 1, values.size()}, bytes);
    }
    void add_ternary(const std::string &name, const naive::Ternary &t) {
        const uint32_t types[] = {0, BNB_TYPE_I2_S, BNB_TYPE_TL1, BNB_TYPE_TL2};
        add(name + ".weight", types[t.layout.format], t.layout, naive::pack(t.layout, t.codes, t.scale));
        if (t.output_scale != 1.0f) {
            add_norm(name + ".scale", {t.output_scale});
        }
    }

    // Pointers are set late: the vectors have stopped growing.
    const std::vector<bnb_tensor> &get() {
        for (size_t i = 0; i < list.size(); ++i) {
            list[i].name = names[i].c_str();
            list[i].bytes = memory[i].data() + 1;
        }
        return list;
    }
    size_t index(const std::string &name) const {
        return static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    }

    std::vector<std::string> names;
    std::vector<std::vector<uint8_t>> memory;
    std::vector<bnb_tensor> list;
};

class Handle {
  public:
    Handle(const bnb_api &api, const bnb_model &model, const std::vector<bnb_tensor> &tensors) : api_(api) {
        status = api.engine_create(&model, tensors.data(), tensors.size(), &get);
        CHECK((get != nullptr) == (status == BNB_OK));
    }
    ~Handle() { api_.engine_free(get); }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;

    bnb_status status;
    bnb_engine *get = nullptr;

  private:
    const bnb_api &api_;
};

struct Call {
    std::vector<uint32_t> tokens;
    size_t n_outputs;
};

// What the oracle says to each call, once for all backends and threads.
struct Expected {
    std::vector<float> logits;
    std::map<std::string, std::vector<float>> nodes;
};

void check_call(const bnb_api &api, bnb_engine *engine, size_t vocab, const Call &call,
                const Expected &expected) {
    std::map<std::string, std::vector<float>> taps;
    for (const auto &node : expected.nodes) {
        std::vector<float> &dst = taps[node.first];
        dst.assign(node.second.size() + 1, kUntouched);
        CHECK(api.engine_tap(engine, node.first.c_str(), dst.data(), node.second.size()) == BNB_OK);
    }
    const bool decode = call.tokens.size() == 1 && call.n_outputs == 1;
    const bnb_status status =
        decode ? api.engine_decode(engine, call.tokens[0])
               : api.engine_prefill(engine, call.tokens.data(), call.tokens.size(), call.n_outputs);
    CHECK(status == BNB_OK);
    std::vector<float> logits(call.n_outputs * vocab);
    CHECK(api.engine_logits(engine, logits.data(), logits.size()) == BNB_OK);
    CHECK(same_bits(logits, expected.logits));
    const std::string before = context;
    for (auto &tap : taps) {
        context = before + " " + tap.first;
        CHECK(tap.second.back() == kUntouched);
        tap.second.pop_back();
        CHECK(same_bits(tap.second, expected.nodes.at(tap.first)));
    }
    context = before;
    CHECK(api.engine_tap(engine, nullptr, nullptr, 0) == BNB_OK);
}

void test_against_the_oracle(const std::vector<const bnb_api *> &apis) {
    constexpr uint32_t silu = BNB_ACTIVATION_SILU, relu = BNB_ACTIVATION_RELU_SQUARED;
    constexpr uint32_t halves = BNB_ROPE_HALVES, neighbours = BNB_ROPE_NEIGHBOURS;
    constexpr uint32_t ggml = BNB_NUMERICS_GGML, pure = BNB_NUMERICS_PURE_F32;
    constexpr uint32_t f16 = BNB_TYPE_F16, f32 = BNB_TYPE_F32;
    const Options all[] = {
        {silu, halves, 1, ggml, f16, f16, 0xff, 0, false},
        {relu, halves, 1, ggml, f16, f16, 0xff, 2, true},
        {silu, neighbours, 0, pure, f32, BNB_TYPE_Q6_K, BNB_TYPE_BF16, 1, false},
        {relu, neighbours, 0, ggml, f32, f32, f16, 0, true},
        {silu, halves, 1, pure, f16, BNB_TYPE_Q8_0, 0xff, 2, false},
        {relu, halves, 0, ggml, f16, BNB_TYPE_BF16, BNB_TYPE_Q6_K, 0, false},
    };
    const Call calls[] = {{{3, 49, 0, 17, 17, 8, 1}, 7}, {{5}, 1}, {{9, 4}, 0},   {{11}, 1},
                          {{2, 6, 40, 41, 42}, 1},       {{7}, 0}, {{1, 2, 3}, 2}};
    for (size_t option = 0; option < sizeof all / sizeof all[0]; ++option) {
        naive::WholeModel model = make_model(all[option]);
        std::vector<Expected> expected;
        for (const Call &call : calls) {
            const std::vector<float> logits = model.run(call.tokens, call.n_outputs);
            expected.push_back({logits, model.nodes});
        }
        Tensors tensors(model);
        for (const bnb_api *api : apis) {
            for (uint32_t threads = 1; threads <= 3; ++threads) {
                bnb_model shape = model.shape;
                shape.threads = threads;
                context = std::string(api->name) + " model " + std::to_string(option) + " threads " +
                          std::to_string(threads);
                const Handle engine(*api, shape, tensors.get());
                CHECK(engine.status == BNB_OK);
                if (engine.status != BNB_OK) {
                    continue;
                }
                for (int again = 0; again < 2; ++again) { // a reset engine answers the same
                    for (size_t i = 0; i < expected.size(); ++i) {
                        check_call(*api, engine.get, model.shape.vocab, calls[i], expected[i]);
                    }
                    CHECK(api->engine_reset(engine.get) == BNB_OK);
                }
                api->quiesce();
            }
        }
    }
}

const Options kPlain = {
    BNB_ACTIVATION_SILU, BNB_ROPE_HALVES, 1, BNB_NUMERICS_GGML, BNB_TYPE_F16, BNB_TYPE_F16, 0xff, 0, true};

void test_bad_models(const bnb_api &api, Tensors &tensors, const bnb_model &good) {
    const auto answer = [&](bnb_model model) { return Handle(api, model, tensors.get()).status; };
    const auto with = [&](auto change) {
        bnb_model model = good;
        change(model);
        return answer(model);
    };
    CHECK(answer(good) == BNB_OK);
    CHECK(with([](bnb_model &m) { m.activation = 0; }) == BNB_INVALID_ARGUMENT);
    CHECK(with([](bnb_model &m) { m.rope = 3; }) == BNB_INVALID_ARGUMENT);
    CHECK(with([](bnb_model &m) { m.sub_norms = 2; }) == BNB_INVALID_ARGUMENT);
    CHECK(with([](bnb_model &m) { m.sub_norms = 0; }) == BNB_INVALID_ARGUMENT); // tensors nobody asked for
    CHECK(with([](bnb_model &m) { m.numerics = 3; }) == BNB_INVALID_ARGUMENT);
    CHECK(with([](bnb_model &m) { m.kv_type = BNB_TYPE_BF16; }) == BNB_INVALID_ARGUMENT);
    CHECK(with([](bnb_model &m) { m.threads = 0; }) == BNB_UNSUPPORTED);
    CHECK(with([](bnb_model &m) { m.threads = UINT32_MAX; }) == BNB_UNSUPPORTED);
    for (const float bad : {0.0f, -1.0f, NAN, INFINITY}) {
        CHECK(with([&](bnb_model &m) { m.rope_base = bad; }) == BNB_INVALID_ARGUMENT);
    }
    for (const float bad : {-1e-5f, NAN, INFINITY}) {
        CHECK(with([&](bnb_model &m) { m.norm_eps = bad; }) == BNB_INVALID_ARGUMENT);
    }
    uint64_t bnb_model::*const sides[] = {&bnb_model::hidden, &bnb_model::ffn,      &bnb_model::layers,
                                          &bnb_model::heads,  &bnb_model::kv_heads, &bnb_model::head_dim,
                                          &bnb_model::vocab,  &bnb_model::context,  &bnb_model::batch};
    for (const auto side : sides) {
        for (const uint64_t bad : {uint64_t{0}, UINT64_MAX, UINT64_MAX / 2, uint64_t{1} << 62}) {
            CHECK(with([&](bnb_model &m) { m.*side = bad; }) != BNB_OK);
        }
        if (side != &bnb_model::context && side != &bnb_model::batch) {
            CHECK(with([&](bnb_model &m) { m.*side *= 2; }) != BNB_OK);
        }
    }
    CHECK(with([](bnb_model &m) { m.outputs = UINT64_MAX; }) != BNB_OK);
    CHECK(with([](bnb_model &m) { m.kv_heads = 3; }) == BNB_INVALID_ARGUMENT);
    CHECK(with([](bnb_model &m) { m.heads = 16, m.kv_heads = 4, m.head_dim = 16; }) ==
          BNB_OK); // the same sides
    CHECK(with([](bnb_model &m) { m.head_dim = 31; }) == BNB_INVALID_ARGUMENT);
    bnb_engine *engine = nullptr;
    CHECK(api.engine_create(nullptr, tensors.get().data(), tensors.list.size(), &engine) ==
          BNB_INVALID_ARGUMENT);
    CHECK(api.engine_create(&good, nullptr, 5, &engine) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_create(&good, tensors.get().data(), tensors.list.size(), nullptr) ==
          BNB_INVALID_ARGUMENT);
    CHECK(api.engine_create(&good, tensors.get().data(), 0, &engine) == BNB_INVALID_ARGUMENT &&
          engine == nullptr);
}

void test_bad_tensors(const bnb_api &api, Tensors &tensors, const bnb_model &good) {
    const std::vector<bnb_tensor> list = tensors.get();
    const auto answer = [&](const std::vector<bnb_tensor> &changed) {
        return Handle(api, good, changed).status;
    };
    const auto with = [&](size_t at, auto change) {
        std::vector<bnb_tensor> changed = list;
        change(changed[at]);
        return answer(changed);
    };
    const std::string before = context;
    for (size_t at = 0; at < list.size(); ++at) {
        context = before + " " + list[at].name;
        std::vector<bnb_tensor> changed = list;
        changed.erase(changed.begin() + static_cast<long>(at));
        const bool optional = std::string(list[at].name).find(".scale") != std::string::npos;
        CHECK(answer(changed) == (optional ? BNB_OK : BNB_INVALID_ARGUMENT));
        changed = list;
        changed.push_back(list[at]);
        CHECK(answer(changed) == BNB_INVALID_ARGUMENT);
        CHECK(with(at, [](bnb_tensor &t) { t.name = "blk.0.attn_rot_embd.weight"; }) == BNB_INVALID_ARGUMENT);
        CHECK(with(at, [](bnb_tensor &t) { t.name = nullptr; }) == BNB_INVALID_ARGUMENT);
        CHECK(with(at, [](bnb_tensor &t) { t.bytes = nullptr; }) == BNB_INVALID_ARGUMENT);
        CHECK(with(at, [](bnb_tensor &t) { t.type = 77; }) == BNB_INVALID_ARGUMENT);
        CHECK(with(at, [](bnb_tensor &t) { t.rows += 1; }) == BNB_INVALID_ARGUMENT);
        CHECK(with(at, [](bnb_tensor &t) { t.cols += 1; }) == BNB_INVALID_ARGUMENT);
        CHECK(with(at, [](bnb_tensor &t) { std::swap(t.rows, t.cols), t.rows += t.rows == t.cols; }) ==
              BNB_INVALID_ARGUMENT);
        CHECK(with(at, [](bnb_tensor &t) { t.n_bytes -= 1; }) == BNB_INVALID_ARGUMENT);
        CHECK(with(at, [](bnb_tensor &t) { t.bm = 5; }) != BNB_OK);
    }
    context = before;
    const auto damaged = [&](const std::string &name, size_t byte, const std::vector<uint8_t> &bytes) {
        std::vector<uint8_t> &memory = tensors.memory[tensors.index(name)];
        const std::vector<uint8_t> whole = memory;
        std::copy(bytes.begin(), bytes.end(), memory.begin() + 1 + static_cast<long>(byte));
        const bnb_status status = answer(tensors.get());
        memory = whole;
        return status;
    };
    std::vector<uint8_t> nan, infinity, negative;
    naive::append(nan, std::numeric_limits<float>::quiet_NaN());
    naive::append(infinity, INFINITY);
    naive::append(negative, -1.0f);
    CHECK(damaged("blk.1.ffn_sub_norm.weight", 4 * 383, nan) == BNB_NON_FINITE);
    CHECK(damaged("output_norm.weight", 0, infinity) == BNB_NON_FINITE);
    CHECK(damaged("blk.0.attn_k.scale", 0, infinity) == BNB_NON_FINITE);
    CHECK(damaged("blk.1.ffn_down.weight", 256 * 384 / 4, nan) == BNB_NON_FINITE);
    CHECK(damaged("blk.1.ffn_down.weight", 256 * 384 / 4, negative) == BNB_INVALID_ARGUMENT);
    CHECK(damaged("blk.1.ffn_down.weight", 256 * 384 / 4 - 1, {3}) == BNB_INVALID_DATA);
    CHECK(damaged("blk.0.attn_q.weight", 0, {0xc0}) == BNB_INVALID_DATA);
    CHECK(answer(list) == BNB_OK);
}

void test_bad_calls(const bnb_api &api, Tensors &tensors, const bnb_model &model) {
    const Handle handle(api, model, tensors.get());
    bnb_engine *engine = handle.get;
    const std::vector<uint32_t> tokens(30, 1);
    std::vector<float> logits(9 * 50);
    CHECK(api.engine_logits(engine, nullptr, 0) == BNB_OK); // nothing was kept yet
    CHECK(api.engine_logits(engine, logits.data(), 50) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_prefill(engine, tokens.data(), 0, 0) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_prefill(engine, tokens.data(), 10, 1) == BNB_INVALID_ARGUMENT); // the batch is 9
    CHECK(api.engine_prefill(engine, tokens.data(), UINT64_MAX, 1) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_prefill(engine, tokens.data(), 2, 3) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_prefill(engine, nullptr, 2, 1) == BNB_INVALID_ARGUMENT);
    const uint32_t unknown[] = {1, 50};
    CHECK(api.engine_prefill(engine, unknown, 2, 1) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_decode(engine, UINT32_MAX) == BNB_INVALID_ARGUMENT);
    // None of those ran anything: 24 positions are free, and not one more.
    CHECK(api.engine_prefill(engine, tokens.data(), 9, 9) == BNB_OK);
    CHECK(api.engine_logits(engine, logits.data(), 450) == BNB_OK);
    CHECK(api.engine_logits(engine, logits.data(), 449) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_logits(engine, nullptr, 450) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_prefill(engine, tokens.data(), 9, 0) == BNB_OK);
    CHECK(api.engine_logits(engine, logits.data(), 0) == BNB_OK);
    CHECK(api.engine_prefill(engine, tokens.data(), 7, 1) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_prefill(engine, tokens.data(), 6, 1) == BNB_OK);
    CHECK(api.engine_decode(engine, 1) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_reset(engine) == BNB_OK);
    CHECK(api.engine_decode(engine, 1) == BNB_OK);

    float dst[4] = {kUntouched, kUntouched, kUntouched, kUntouched};
    for (const char *name :
         {"", "norm", "norm-2.RMS_NORM", "norm-0.RMS_NORM.5", "norm-00.RMS_NORM", "norm-.RMS_NORM",
          "norm-18446744073709551616.RMS_NORM", "l_out-0.ADDS", "ffn_sqr(relu)-0.SQR", "result_norm.MUL.2",
          "inp_embd-0.GET_ROWS", "Qcur-0 (reshaped).RESHAPE"}) {
        CHECK(api.engine_tap(engine, name, dst, 4) == BNB_UNSUPPORTED);
    }
    CHECK(api.engine_tap(engine, "l_out-1.ADD", dst, 3) == BNB_OK); // as far as three values go
    CHECK(api.engine_decode(engine, 2) == BNB_OK);
    CHECK(dst[0] != kUntouched && dst[2] != kUntouched && dst[3] == kUntouched);
    CHECK(api.engine_tap(engine, "l_out-1.ADD", nullptr, 0) == BNB_OK);
    dst[0] = kUntouched;
    CHECK(api.engine_decode(engine, 2) == BNB_OK && dst[0] == kUntouched);

    CHECK(api.engine_prefill(nullptr, tokens.data(), 1, 1) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_decode(nullptr, 0) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_logits(nullptr, logits.data(), 0) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_tap(nullptr, nullptr, nullptr, 0) == BNB_INVALID_ARGUMENT);
    CHECK(api.engine_reset(nullptr) == BNB_INVALID_ARGUMENT);
    api.engine_free(nullptr);
}

// An embedding that is no number: refused when it is met, and until the engine is reset.
void test_non_finite(const bnb_api &api, Tensors &tensors, const bnb_model &model) {
    std::vector<uint8_t> &memory = tensors.memory[tensors.index("token_embd.weight")];
    const std::vector<uint8_t> whole = memory;
    memory[1 + 2 * (7 * 256 + 3) + 1] = 0x7e; // token 7 has a NaN
    for (const uint32_t threads : {1u, 2u}) {
        bnb_model shape = model;
        shape.threads = threads;
        const Handle handle(api, shape, tensors.get());
        const uint32_t tokens[] = {1, 2, 7, 3};
        std::vector<float> logits(50);
        CHECK(api.engine_prefill(handle.get, tokens, 2, 0) == BNB_OK);
        CHECK(api.engine_prefill(handle.get, tokens, 4, 1) == BNB_NON_FINITE);
        CHECK(api.engine_logits(handle.get, logits.data(), 50) == BNB_INVALID_ARGUMENT);
        CHECK(api.engine_prefill(handle.get, tokens, 1, 0) == BNB_NON_FINITE); // though 1 is a number
        CHECK(api.engine_reset(handle.get) == BNB_OK);
        // The row of token 7 is a row of the head too, so its logit is no number for anybody.
        CHECK(api.engine_prefill(handle.get, tokens, 2, 0) == BNB_OK);
        CHECK(api.engine_decode(handle.get, 1) == BNB_NON_FINITE);
    }
    memory = whole;
}

} // namespace

int main() {
    const std::vector<const bnb_api *> apis = available_backends();
    std::vector<std::string> tested;
    test_against_the_oracle(apis);
    const naive::WholeModel model = make_model(kPlain);
    Tensors tensors(model);
    for (const bnb_api *api : apis) {
        context = std::string(api->name) + " bad arguments";
        test_bad_models(*api, tensors, model.shape);
        test_bad_tensors(*api, tensors, model.shape);
        test_bad_calls(*api, tensors, model.shape);
        test_non_finite(*api, tensors, model.shape);
        tested.push_back(api->name);
    }
    context = "enumeration";
    CHECK(all_backends_tested(tested));
    std::printf("engine: %zu passed, %zu failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
