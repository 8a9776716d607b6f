// The oracle of float products and whole models, from docs/NUMERICS.md, value by value: no vectors, no blocks
// of tokens, no threads, no code shared with the reference. Weights are kept as codes and floats, never as
// bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "naive.hpp"

namespace naive {

// The nearest float16, half to even, by arithmetic on the value.
inline float half(float x) {
    if (x == 0.0f || !std::isfinite(x)) {
        return x;
    }
    const int exponent = std::max(std::ilogb(x), -14);
    const double rounded =
        std::ldexp(round_half_even(std::ldexp(static_cast<double>(x), 10 - exponent)), exponent - 10);
    const double limited = std::fabs(rounded) > 65504.0 ? std::copysign(INFINITY, rounded) : rounded;
    return std::copysign(static_cast<float>(limited), x);
}

// The bits of a value that is a float16.
inline uint16_t half_bits(float x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const double magnitude = std::fabs(static_cast<double>(x));
    if (std::isinf(x)) {
        return sign | 0x7c00;
    }
    if (magnitude < 0x1p-14) {
        return sign | static_cast<uint16_t>(magnitude * 0x1p24);
    }
    const int exponent = std::ilogb(magnitude);
    const double fraction = std::ldexp(magnitude, 10 - exponent) - 1024.0;
    return static_cast<uint16_t>(sign | (exponent + 15) << 10 | static_cast<int>(fraction));
}

// A float matrix as values, and as the bytes that say them.
struct FloatTensor {
    uint32_t type;
    uint64_t rows, cols;
    std::vector<float> values;
    std::vector<uint8_t> bytes;
    std::vector<int8_t> codes; // Q8_0 alone
    std::vector<float> scales; // Q8_0: one for each 32 values
};

template <class T> void append(std::vector<uint8_t> &bytes, T value) {
    const auto *from = reinterpret_cast<const uint8_t *>(&value);
    bytes.insert(bytes.end(), from, from + sizeof value);
}

template <class Bits> FloatTensor float_tensor(uint32_t type, uint64_t rows, uint64_t cols, Bits random) {
    FloatTensor t = {type, rows, cols, std::vector<float>(rows * cols), {}, {}, {}};
    const auto real = [&] { return static_cast<float>(static_cast<int>(random() % 4001) - 2000) / 3000.0f; };
    for (size_t at = 0; type != BNB_TYPE_Q8_0 && type != BNB_TYPE_Q6_K && at < t.values.size(); ++at) {
        float value = real();
        if (type == BNB_TYPE_F16) {
            value = half(value);
            append(t.bytes, half_bits(value));
        } else if (type == BNB_TYPE_BF16) {
            const auto upper = static_cast<uint16_t>(0x3f00u + random() % 128 + (random() % 2 << 15));
            append(t.bytes, upper);
            const uint32_t bits = uint32_t{upper} << 16;
            std::memcpy(&value, &bits, 4);
        } else {
            append(t.bytes, value);
        }
        t.values[at] = value;
    }
    for (size_t at = 0; type == BNB_TYPE_Q8_0 && at < t.values.size(); at += 32) {
        t.scales.push_back(half(real() / 100.0f));
        append(t.bytes, half_bits(t.scales.back()));
        for (size_t i = 0; i < 32; ++i) {
            t.codes.push_back(static_cast<int8_t>(random()));
            append(t.bytes, t.codes.back());
            t.values[at + i] = t.scales.back() * static_cast<float>(t.codes.back());
        }
    }
    for (size_t at = 0; type == BNB_TYPE_Q6_K && at < t.values.size(); at += 256) {
        uint8_t block[210] = {};
        const float d = half(real() / 100.0f);
        for (size_t i = 0; i < 16; ++i) {
            block[192 + i] = static_cast<uint8_t>(random());
        }
        for (size_t i = 0; i < 256; ++i) {
            const auto q = static_cast<unsigned>(random() % 64);
            const size_t h = i / 128, c = i / 32 % 4, l = i % 32;
            block[64 * h + 32 * (c % 2) + l] |= static_cast<uint8_t>((q & 15) << (c < 2 ? 0 : 4));
            block[128 + 32 * h + l] |= static_cast<uint8_t>(q >> 4 << (2 * c));
            const float scale = d * static_cast<float>(static_cast<int8_t>(block[192 + i / 16]));
            t.values[at + i] = scale * static_cast<float>(static_cast<int>(q) - 32);
        }
        const uint16_t bits = half_bits(d);
        std::memcpy(block + 208, &bits, 2);
        t.bytes.insert(t.bytes.end(), block, block + 210);
    }
    return t;
}

inline float dot(const float *w, const float *x, size_t n) {
    float lane[32] = {};
    for (size_t k = 0; k < n; ++k) {
        lane[k % 32] = std::fma(w[k], x[k], lane[k % 32]);
    }
    for (size_t h = 16; h > 0; h /= 2) {
        for (size_t l = 0; l < h; ++l) {
            lane[l] = lane[l] + lane[l + h];
        }
    }
    return lane[0];
}

// One row of the matrix times x.
inline float row_product(const FloatTensor &t, size_t row, const float *x) {
    if (t.type != BNB_TYPE_Q8_0) {
        return dot(&t.values[row * t.cols], x, t.cols);
    }
    float y = 0.0f;
    for (size_t b = 0; b < t.cols / 32; ++b) {
        float a = 0.0f;
        for (size_t i = 0; i < 32; ++i) {
            a = std::max(a, std::fabs(x[b * 32 + i]));
        }
        const float d = half(a / 127.0f), inverse = 127.0f / a;
        int64_t sum = 0;
        for (size_t i = 0; i < 32; ++i) {
            const float product = x[b * 32 + i] * inverse;
            const double q = std::isinf(inverse) ? 0.0 : round_half_even(product);
            sum += t.codes[row * t.cols + b * 32 + i] * static_cast<int64_t>(q);
        }
        y = std::fma(static_cast<float>(sum), t.scales[row * t.cols / 32 + b] * d, y);
    }
    return y;
}

inline float exponential(float x) {
    const float z = std::fma(x, 0x1.715476p+0f, 0x1.8p23f), n = z - 0x1.8p23f;
    if (n < -126.0f || n > 127.0f) {
        return n > 0.0f ? INFINITY : 0.0f;
    }
    const float b = std::fma(-n, 0x1.7f7d1cp-20f, std::fma(-n, 0x1.62e4p-1f, x));
    const float u = b * b;
    const float p = std::fma(0x1.0e4020p-7f, b, 0x1.573e2ep-5f),
                q = std::fma(0x1.555e66p-3f, b, 0x1.fffdb6p-2f);
    const float j = std::fma(std::fma(p, u, q), u, 0x1.ffffecp-1f * b);
    const float k = std::ldexp(1.0f, static_cast<int>(n));
    return std::fma(k, j, k);
}

struct Ternary {
    bnb_layout layout;
    std::vector<int8_t> codes;
    float scale;
    float output_scale; // 1: no tensor of that name

    std::vector<float> apply(const std::vector<float> &x) const {
        std::vector<float> y = linear(layout, codes, scale, x.data(), 1);
        for (float &value : y) {
            value = value * output_scale;
        }
        return y;
    }
};

struct ModelLayer {
    std::vector<float> attention_norm, attention_sub_norm, ffn_norm, ffn_sub_norm;
    Ternary q, k, v, o, gate, up, down;
};

// Runs tokens like an engine; `nodes` holds the intermediates of the last call by name.
struct WholeModel {
    bnb_model shape;
    FloatTensor embedding, head; // the head has no bytes where the embedding serves
    std::vector<float> result_norm;
    std::vector<ModelLayer> layers;
    std::map<std::string, std::vector<float>> nodes;
    std::vector<std::vector<std::vector<float>>> keys, values; // [layer][position]

    void reset() {
        keys.assign(layers.size(), {});
        values.assign(layers.size(), {});
    }

    void note(const std::string &name, const std::vector<float> &row) {
        nodes[name].insert(nodes[name].end(), row.begin(), row.end());
    }

    std::vector<float> norm(const std::vector<float> &x, const std::vector<float> &w, const std::string &rms,
                            const std::string &name) {
        double sum = 0.0;
        for (const float value : x) {
            const volatile float square = value * value;
            sum += static_cast<double>(square);
        }
        const float mean = static_cast<float>(sum / static_cast<double>(x.size()));
        const float s = 1.0f / std::sqrt(mean + shape.norm_eps);
        std::vector<float> scaled(x.size()), y(x.size());
        for (size_t i = 0; i < x.size(); ++i) {
            scaled[i] = x[i] * s;
            y[i] = scaled[i] * w[i];
        }
        if (!rms.empty()) {
            note(rms, scaled);
        }
        note(name, y);
        return y;
    }

    std::vector<float> rope(std::vector<float> x, size_t position) const {
        const size_t d = shape.head_dim;
        const float ratio =
            static_cast<float>(std::pow(static_cast<double>(shape.rope_base), -2.0 / static_cast<double>(d)));
        for (size_t head = 0; head < x.size() / d; ++head) {
            float angle = static_cast<float>(position);
            for (size_t j = 0; j < d / 2; ++j) {
                const float c = static_cast<float>(std::cos(static_cast<double>(angle)));
                const float s = static_cast<float>(std::sin(static_cast<double>(angle)));
                float *a = &x[head * d + (shape.rope == BNB_ROPE_HALVES ? j : 2 * j)];
                float *b = shape.rope == BNB_ROPE_HALVES ? a + d / 2 : a + 1;
                const float bs = *b * s, bc = *b * c, first = std::fma(*a, c, -bs),
                            second = std::fma(*a, s, bc);
                *a = first;
                *b = second;
                angle = angle * ratio;
            }
        }
        return x;
    }

    std::vector<float> stored(std::vector<float> x) const {
        for (float &value : x) {
            value = shape.kv_type == BNB_TYPE_F16 ? half(value) : value;
        }
        return x;
    }

    std::vector<float> attend(size_t layer, const std::vector<float> &q, size_t position, size_t n) const {
        const size_t d = shape.head_dim, group = shape.heads / shape.kv_heads;
        const bool rounds = shape.numerics == BNB_NUMERICS_GGML && shape.kv_type == BNB_TYPE_F16;
        std::vector<float> out(q.size());
        for (size_t head = 0; head < shape.heads; ++head) {
            std::vector<float> query(&q[head * d], &q[head * d] + d), p;
            for (float &value : query) {
                value = rounds ? half(value) : value;
            }
            const float scale = 1.0f / std::sqrt(static_cast<float>(d));
            for (size_t t = 0; t <= position; ++t) {
                p.push_back(dot(&keys[layer][t][head / group * d], query.data(), d) * scale);
            }
            const float most = *std::max_element(p.begin(), p.end());
            double sum = 0.0;
            for (float &value : p) {
                value = exponential(value - most);
                sum += static_cast<double>(value);
            }
            const float inverse = static_cast<float>(1.0 / sum);
            for (size_t t = 0; t <= position; ++t) {
                p[t] = p[t] * inverse;
                p[t] = rounds && n == 1 ? half(p[t]) : p[t];
                for (size_t i = 0; i < d; ++i) {
                    float &o = out[head * d + i];
                    o = std::fma(p[t], values[layer][t][head / group * d + i], o);
                }
            }
        }
        return out;
    }

    std::vector<float> feed_forward(size_t index, const std::vector<float> &x) {
        const ModelLayer &l = layers[index];
        const std::string i = std::to_string(index);
        const bool sub = shape.sub_norms != 0, silu = shape.activation == BNB_ACTIVATION_SILU;
        const std::vector<float> h = norm(x, l.ffn_norm, "norm-" + i + (sub ? ".RMS_NORM.3" : ".RMS_NORM.2"),
                                          "ffn_norm-" + i + ".MUL");
        std::vector<float> a = l.gate.apply(h), up = l.up.apply(h);
        note("ffn_gate-" + i + ".MUL_MAT", a);
        note("ffn_up-" + i + ".MUL_MAT", up);
        for (float &g : a) {
            const float r = std::max(g, 0.0f);
            g = silu ? g / (1.0f + exponential(-g)) : r * r;
        }
        note(silu ? "ffn_silu-" + i + ".UNARY" : "ffn_sqr(relu)-" + i + ".SQR", a);
        for (size_t at = 0; at < a.size(); ++at) {
            a[at] = a[at] * up[at];
        }
        note("ffn_sub_out-" + i + ".MUL", a);
        if (sub) {
            a = norm(a, l.ffn_sub_norm, "norm-" + i + ".RMS_NORM.4", "ffn_sub_norm-" + i + ".MUL");
        }
        return l.down.apply(a);
    }

    static void add(std::vector<float> &x, const std::vector<float> &y) {
        for (size_t i = 0; i < x.size(); ++i) {
            x[i] = x[i] + y[i];
        }
    }

    std::vector<float> run(const std::vector<uint32_t> &tokens, size_t n_outputs) {
        nodes.clear();
        const size_t start = keys[0].size();
        std::vector<std::vector<float>> stream;
        for (const uint32_t token : tokens) {
            const float *row = &embedding.values[token * shape.hidden];
            stream.emplace_back(row, row + shape.hidden);
            note("inp_embd.GET_ROWS", stream.back());
        }
        for (size_t index = 0; index < layers.size(); ++index) {
            const ModelLayer &l = layers[index];
            const std::string i = std::to_string(index);
            for (size_t token = 0; token < tokens.size(); ++token) {
                std::vector<float> &x = stream[token];
                const std::vector<float> h =
                    norm(x, l.attention_norm, "norm-" + i + ".RMS_NORM", "attn_norm-" + i + ".MUL");
                const std::vector<float> q = l.q.apply(h), k = l.k.apply(h), v = l.v.apply(h);
                const std::vector<float> q_rope = rope(q, start + token), k_rope = rope(k, start + token);
                keys[index].push_back(stored(k_rope));
                values[index].push_back(stored(v));
                std::vector<float> o = attend(index, q_rope, start + token, tokens.size());
                note("Qcur-" + i + ".MUL_MAT", q);
                note("Kcur-" + i + ".MUL_MAT", k);
                note("Vcur-" + i + ".MUL_MAT", v);
                note("Qcur-" + i + ".ROPE", q_rope);
                note("Kcur-" + i + ".ROPE", k_rope);
                note("kqv_out-" + i + ".CONT", o);
                if (shape.sub_norms != 0) {
                    o = norm(o, l.attention_sub_norm, "norm-" + i + ".RMS_NORM.2",
                             "attn_sub_norm-" + i + ".MUL");
                }
                const std::vector<float> out = l.o.apply(o);
                note("attn_o_out-" + i + ".MUL_MAT", out);
                add(x, out);
                note("ffn_inp-" + i + ".ADD", x);
                const std::vector<float> down = feed_forward(index, x);
                note("ffn_down-" + i + ".MUL_MAT", down);
                add(x, down);
                note("l_out-" + i + ".ADD", x);
            }
        }
        std::vector<float> logits;
        const FloatTensor &rows = head.bytes.empty() ? embedding : head;
        for (size_t token = tokens.size() - n_outputs; token < tokens.size(); ++token) {
            std::vector<float> h = norm(stream[token], result_norm, "", "result_norm.MUL");
            for (float &value : h) {
                const bool rounds =
                    shape.numerics == BNB_NUMERICS_GGML && rows.type == BNB_TYPE_F16 && n_outputs == 1;
                value = rounds ? half(value) : value;
            }
            for (size_t row = 0; row < shape.vocab; ++row) {
                logits.push_back(row_product(rows, row, h.data()));
            }
        }
        note("result_output.MUL_MAT", logits);
        return logits;
    }
};

} // namespace naive
