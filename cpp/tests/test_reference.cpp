// Every test takes the backend as its argument and runs over all that are available here. What is expected
// comes from naive.hpp. Outputs stand between canaries; inputs are misaligned on purpose.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "backends.hpp"
#include "bitnet_backend.h"
#include "naive.hpp"

namespace {

size_t passed = 0;
size_t failed = 0;
std::string context; // which backend, which test

void check(bool holds, const char *expression, int line) {
    if (holds) {
        ++passed;
        return;
    }
    if (++failed <= 20) {
        std::printf("FAILED line %d: %s (%s)\n", line, expression, context.c_str());
    }
}

#define CHECK(expression) check((expression), #expression, __LINE__)

uint64_t random_state = 42;

// splitmix64
uint64_t random_bits() {
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float random_float(float largest) {
    return (static_cast<float>(random_bits() >> 40) / 8388608.0f - 1.0f) * largest;
}

std::vector<int8_t> random_codes(size_t n) {
    std::vector<int8_t> codes(n);
    for (int8_t &code : codes) {
        code = static_cast<int8_t>(static_cast<int>(random_bits() % 3) - 1);
    }
    return codes;
}

// n elements that start `shift` elements into their memory, with a painted fence on both sides.
template <class T> class Fenced {
  public:
    explicit Fenced(size_t n, size_t shift = 1)
        : n_(n), at_(kFence + shift), memory_(n + shift + 2 * kFence) {
        std::memset(memory_.data(), kPaint, memory_.size() * sizeof(T));
    }
    Fenced(const std::vector<T> &values, size_t shift) : Fenced(values.size(), shift) {
        std::copy(values.begin(), values.end(), data());
    }

    T *data() { return memory_.data() + at_; }
    size_t size() const { return n_; }
    std::vector<T> values() { return std::vector<T>(data(), data() + n_); }

    bool fence_holds() const { return painted(0, at_) && painted(at_ + n_, memory_.size()); }
    bool untouched() const { return painted(0, memory_.size()); }

  private:
    static constexpr size_t kFence = 64;
    static constexpr int kPaint = 0xa5;

    bool painted(size_t from, size_t to) const {
        const auto *bytes = reinterpret_cast<const unsigned char *>(memory_.data());
        for (size_t i = from * sizeof(T); i < to * sizeof(T); ++i) {
            if (bytes[i] != kPaint) {
                return false;
            }
        }
        return true;
    }

    size_t n_;
    size_t at_;
    std::vector<T> memory_;
};

template <class T> bool same_bits(const std::vector<T> &a, const std::vector<T> &b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

bnb_layout i2s(uint64_t rows, uint64_t cols) {
    return {BNB_FORMAT_I2_S, 0, 0, 0, rows, cols};
}

std::string text(const bnb_layout &l) {
    char line[128];
    std::snprintf(line, sizeof line, "format %u %llux%llu bm %u bk %u by %u", l.format,
                  static_cast<unsigned long long>(l.rows), static_cast<unsigned long long>(l.cols), l.bm,
                  l.bk, l.by);
    return line;
}

// A packed matrix with its codes; the bytes stand at an odd address.
struct Matrix {
    Matrix(const bnb_layout &l, std::vector<int8_t> values, float s)
        : layout(l), codes(std::move(values)), scale(s), bytes(naive::pack(l, codes, s), 1) {}
    explicit Matrix(const bnb_layout &l) : Matrix(l, random_codes(l.rows * l.cols), 0.0173f) {}

    bnb_weights weights() { return {layout, bytes.data(), bytes.size(), scale}; }

    bnb_layout layout;
    std::vector<int8_t> codes;
    float scale;
    Fenced<uint8_t> bytes;
};

// A prepared matrix; status holds what prepare answered.
class Handle {
  public:
    Handle(const bnb_api &api, const bnb_weights &weights, uint64_t n_max, uint32_t threads = 1) : api_(api) {
        status = api.matmul_prepare(&weights, n_max, threads, &get);
    }
    ~Handle() { api_.matmul_free(get); }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;

    bnb_status status;
    bnb_matmul *get = nullptr;

  private:
    const bnb_api &api_;
};

// Shapes at +-1 of every boundary of the formats and of the kernels: 2, 3, 4 and 32 rows at a time, strips of
// 8, 10, 16, 32, 38, 48, 64 and 96 blocks.
std::vector<bnb_layout> layouts() {
    std::vector<bnb_layout> all;
    for (const uint64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33}) {
        for (const uint64_t cols : {128, 256, 384}) {
            all.push_back(i2s(rows, cols));
        }
    }
    for (const uint64_t rows : {63, 64, 65, 127, 129}) { // panels of 64 rows, strips of 4 blocks
        for (const uint64_t blocks : {1, 4, 5}) {
            all.push_back(i2s(rows, 128 * blocks));
        }
    }
    all.push_back(i2s(4, 128 * 128));
    all.push_back(i2s(3, 128 * 129));
    for (const uint64_t blocks :
         {7, 8, 9, 10, 11, 15, 16, 17, 20, 21, 31, 32, 33, 37, 38, 39, 47, 48, 49, 54, 64, 65, 95, 96, 97}) {
        all.push_back(i2s(5, 128 * blocks));
    }
    for (const uint32_t by : {4u, 8u}) {
        const uint32_t rows = 256 / by;
        for (const uint32_t bm : {rows, 2 * rows}) {
            for (const uint32_t bk : {by, 3 * by, 64u, 128u}) {
                all.push_back({BNB_FORMAT_TL1, bm, bk, by, bm, bk});
                all.push_back({BNB_FORMAT_TL1, bm, bk, by, 2 * bm, 3 * bk});
            }
        }
    }
    all.push_back({BNB_FORMAT_TL1, 160, 64, 8, 320, 128});
    all.push_back({BNB_FORMAT_TL2, 32, 96, 8, 32, 256});
    all.push_back({BNB_FORMAT_TL2, 32, 96, 8, 96, 320});
    all.push_back({BNB_FORMAT_TL2, 64, 96, 8, 128, 288});
    all.push_back({BNB_FORMAT_TL2, 64, 96, 8, 64, 416});
    all.push_back({BNB_FORMAT_TL2, 128, 96, 8, 256, 512});
    all.push_back({BNB_FORMAT_TL2, 160, 96, 8, 160, 640});
    all.push_back({BNB_FORMAT_TL2, 32, 192, 8, 64, 1536});
    all.push_back({BNB_FORMAT_TL2, 32, 72, 8, 32, 288});
    all.push_back({BNB_FORMAT_TL2, 32, 24, 8, 32, 264 + 24});
    all.push_back({BNB_FORMAT_TL2, 32, 288, 8, 32, 256}); // no triples at all
    all.push_back({BNB_FORMAT_TL2, 32, 1536, 8, 32, 3072 + 32});
    return all;
}

void test_identity(const bnb_api &api) {
    CHECK(api.abi_major == BNB_ABI_MAJOR && api.abi_minor == BNB_ABI_MINOR);
    CHECK(api.struct_size == sizeof(bnb_api));
    CHECK(std::string(api.name) == "cpp-" + std::string(api.isa));
    const bnb_build_info &info = *api.build_info;
    for (const char *field :
         {info.compiler, info.version, info.flags, info.optimisation, info.source_hash, info.git_revision}) {
        CHECK(field != nullptr);
    }
    CHECK(info.compiler[0] != '\0' && info.version[0] != '\0' && info.optimisation[0] != '\0');
    CHECK(api.available(nullptr) == BNB_OK);
    api.quiesce();
    api.matmul_free(nullptr);
}

void test_packing(const bnb_api &api) {
    for (const bnb_layout &layout : layouts()) {
        context = std::string(api.name) + " packing " + text(layout);
        Matrix matrix(layout);
        Fenced<float> floats(layout.rows * layout.cols);
        const bnb_weights weights = matrix.weights();
        CHECK(api.dequantize_weights(&weights, floats.data(), floats.size()) == BNB_OK);
        CHECK(floats.fence_holds());
        bool equal = true;
        for (size_t i = 0; i < floats.size(); ++i) {
            equal = equal && floats.data()[i] == static_cast<float>(matrix.codes[i]) * matrix.scale;
        }
        CHECK(equal);

        // Weights that are already 0 or +-s come back as the same bytes.
        Fenced<uint8_t> packed(naive::packed_bytes(layout));
        float scale = -1.0f;
        CHECK(api.quantize_weights(&layout, BNB_RULE_MAXABS, floats.data(), floats.size(), packed.data(),
                                   packed.size(), &scale) == BNB_OK);
        CHECK(packed.fence_holds());
        CHECK(scale == matrix.scale);
        CHECK(same_bits(packed.values(), matrix.bytes.values()));
        CHECK(matrix.bytes.fence_holds());
    }
}

// One weight matrix by both rules against the rules spelt out.
void check_weight_rules(const bnb_api &api, const bnb_layout &layout, const std::vector<float> &values) {
    double sum = 0.0, largest = 0.0;
    for (const float w : values) {
        sum += std::fabs(static_cast<double>(w));
        largest = std::max(largest, std::fabs(static_cast<double>(w)));
    }
    const float mean = static_cast<float>(sum / static_cast<double>(values.size()));
    const float inverse = 1.0f / std::max(mean, 1e-5f);
    std::vector<int8_t> absmean, maxabs;
    bool nonzero = false;
    for (const float w : values) {
        const volatile float product = w * inverse;
        absmean.push_back(static_cast<int8_t>(std::clamp(naive::round_half_even(product), -1.0, 1.0)));
        nonzero = nonzero || absmean.back() != 0;
        maxabs.push_back(std::fabs(static_cast<double>(w)) < 1e-6 ? 0 : w > 0.0f ? 1 : -1);
    }
    Fenced<float> src(values, 3);
    for (const uint32_t rule : {BNB_RULE_ABSMEAN, BNB_RULE_MAXABS}) {
        const bool is_mean = rule == BNB_RULE_ABSMEAN;
        const float expected = is_mean ? (nonzero ? 1.0f / inverse : 0.0f) : static_cast<float>(largest);
        Fenced<uint8_t> packed(naive::packed_bytes(layout));
        float scale = -1.0f;
        CHECK(api.quantize_weights(&layout, rule, src.data(), src.size(), packed.data(), packed.size(),
                                   &scale) == BNB_OK);
        CHECK(packed.fence_holds() && src.fence_holds());
        CHECK(same_bits<float>({scale}, {expected}));
        CHECK(same_bits(packed.values(), naive::pack(layout, is_mean ? absmean : maxabs, expected)));
    }
}

void test_weight_rules(const bnb_api &api) {
    for (const bnb_layout &layout : layouts()) {
        context = std::string(api.name) + " weight rules " + text(layout);
        const size_t n = layout.rows * layout.cols;
        std::vector<float> values(n);
        for (float &w : values) {
            w = random_float(0.05f);
        }
        check_weight_rules(api, layout, values);
        if (n > 4096) {
            continue;
        }
        // Mean |w| = 1, so that 0.5 and 1.5 are ties of the rounding.
        for (size_t i = 0; i < n; ++i) {
            values[i] = (i % 2 == 0 ? 0.5f : 1.5f) * (i % 4 < 2 ? 1.0f : -1.0f);
        }
        check_weight_rules(api, layout, values);
        // Around 1e-6, where the packer begins to see a sign; signed zeros, subnormals, one giant.
        const float edge = 1e-6f;
        const float corner[] = {edge,   -edge, std::nextafter(edge, 1.0f), -std::nextafter(edge, 1.0f),
                                0.0f,   -0.0f, std::nextafter(edge, 0.0f), 1e-42f,
                                -1e-42f};
        for (size_t i = 0; i < n; ++i) {
            values[i] = corner[i % (sizeof corner / sizeof corner[0])];
        }
        check_weight_rules(api, layout, values);
        values[n - 1] = -std::numeric_limits<float>::max();
        check_weight_rules(api, layout, values);
        check_weight_rules(api, layout, std::vector<float>(n, 0.0f));
    }
}

void test_activations(const bnb_api &api) {
    std::vector<size_t> lengths = {1,  2,  7,  8,  9,   15,  16,  17,  31,  32,
                                   33, 63, 64, 65, 127, 128, 129, 255, 2560};
    for (const size_t cols : lengths) {
        for (const size_t rows : {size_t{1}, size_t{3}, size_t{257}}) {
            if (rows == 257 && cols > 65) {
                continue;
            }
            context =
                std::string(api.name) + " activations " + std::to_string(rows) + "x" + std::to_string(cols);
            std::vector<float> values(rows * cols);
            for (size_t i = 0; i < values.size(); ++i) {
                const size_t row = i / cols;
                values[i] = row % 3 == 0   ? random_float(3.0f)
                            : row % 3 == 1 ? static_cast<float>(i % 254) - 126.5f // ties once the scale is 1
                                           : random_float(1e-6f);                 // below the floor of 1e-5
            }
            if (rows > 1) {
                values[cols] = 127.0f;
                std::fill_n(values.begin() + static_cast<std::ptrdiff_t>((rows - 1) * cols), cols, -0.0f);
            }
            Fenced<float> x(values, 3);
            Fenced<int8_t> q(values.size());
            Fenced<float> scale(rows);
            Fenced<int32_t> sum(rows);
            CHECK(api.quantize_activations(x.data(), x.size(), rows, cols, q.data(), q.size(), scale.data(),
                                           rows, sum.data(), rows) == BNB_OK);
            CHECK(q.fence_holds() && scale.fence_holds() && sum.fence_holds());
            bool equal = true;
            for (size_t row = 0; row < rows; ++row) {
                const naive::QuantizedRow expected = naive::quantize_row(x.data() + row * cols, cols, false);
                equal = equal && std::memcmp(expected.q.data(), q.data() + row * cols, cols) == 0 &&
                        expected.scale == scale.data()[row] && expected.sum == sum.data()[row];
            }
            CHECK(equal);
        }
    }
}

void test_products(const bnb_api &api) {
    for (const bnb_layout &layout : layouts()) {
        Matrix matrix(layout);
        const size_t size = layout.rows * layout.cols, most = size <= 4096        ? 265
                                                              : size <= 129 * 640 ? 37
                                                                                  : 25;
        const Handle handle(api, matrix.weights(), most);
        context = std::string(api.name) + " products " + text(layout);
        CHECK(handle.status == BNB_OK);
        for (const size_t n :
             {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 24, 25, 32, 33, 37, 256, 257, 265}) {
            if (n > most) {
                break;
            }
            Fenced<int8_t> q(n * layout.cols);
            for (size_t i = 0; i < q.size(); ++i) {
                q.data()[i] = static_cast<int8_t>(random_bits());
            }
            Fenced<int32_t> out(n * layout.rows);
            CHECK(api.matmul_i8_i32(handle.get, q.data(), q.size(), n, out.data(), out.size()) == BNB_OK);
            CHECK(out.fence_holds() && q.fence_holds());
            CHECK(same_bits(out.values(), naive::products(layout, matrix.codes, q.data(), n)));
        }
        CHECK(matrix.bytes.fence_holds());
    }
}

// More weights than stay in a cache while every activation row meets them.
void test_large_products(const bnb_api &api) {
    Matrix matrix(i2s(133, 128 * 129));
    const Handle handle(api, matrix.weights(), 13);
    for (const size_t n : {2, 7, 13}) {
        context = std::string(api.name) + " large products n " + std::to_string(n);
        std::vector<int8_t> q(n * matrix.layout.cols);
        for (int8_t &value : q) {
            value = static_cast<int8_t>(random_bits());
        }
        Fenced<int32_t> out(n * matrix.layout.rows);
        CHECK(api.matmul_i8_i32(handle.get, q.data(), q.size(), n, out.data(), out.size()) == BNB_OK);
        CHECK(out.fence_holds());
        CHECK(same_bits(out.values(), naive::products(matrix.layout, matrix.codes, q.data(), n)));
    }
}

// Every cut into threads gives the bits of one thread; more threads than rows leave some without work.
void test_threads(const bnb_api &api) {
    CHECK((api.capabilities & BNB_CAP_THREADS) != 0);
    const bnb_layout shapes[] = {
        i2s(1, 128),
        i2s(67, 640),
        i2s(193, 384),
        i2s(320, 256),
        {BNB_FORMAT_TL1, 64, 64, 4, 320, 128},
        {BNB_FORMAT_TL1, 32, 64, 8, 96, 128},
        {BNB_FORMAT_TL2, 32, 96, 8, 160, 320},
        {BNB_FORMAT_TL2, 96, 96, 8, 288, 320},
    };
    for (const bnb_layout &layout : shapes) {
        Matrix matrix(layout);
        const size_t rows = layout.rows, cols = layout.cols, most = 20;
        std::vector<float> values(most * cols);
        std::vector<int8_t> codes(most * cols);
        for (size_t i = 0; i < values.size(); ++i) {
            values[i] = random_float(2.0f);
            codes[i] = static_cast<int8_t>(random_bits());
        }
        Fenced<float> x(values, 1);
        Fenced<int8_t> q(codes, 1);
        const std::vector<int32_t> dots = naive::products(layout, matrix.codes, q.data(), most);
        const std::vector<float> outputs = naive::linear(layout, matrix.codes, matrix.scale, x.data(), most);
        for (const uint32_t threads : {1u, 2u, 3u, 4u, 7u}) {
            const Handle handle(api, matrix.weights(), most, threads);
            CHECK(handle.status == BNB_OK);
            CHECK(api.matmul_bytes(handle.get) >= most * (cols + 4 * rows));
            for (const size_t n : {size_t{1}, size_t{2}, size_t{3}, size_t{5}, size_t{8}, most}) {
                context = std::string(api.name) + " " + std::to_string(threads) + " threads, " +
                          text(layout) + " n " + std::to_string(n);
                Fenced<int32_t> out(n * rows);
                CHECK(api.matmul_i8_i32(handle.get, q.data(), n * cols, n, out.data(), n * rows) == BNB_OK);
                CHECK(out.fence_holds());
                CHECK(std::memcmp(out.data(), dots.data(), 4 * n * rows) == 0);
                Fenced<float> y(n * rows);
                CHECK(api.linear_f32_f32(handle.get, x.data(), n * cols, n, y.data(), n * rows) == BNB_OK);
                CHECK(y.fence_holds());
                CHECK(std::memcmp(y.data(), outputs.data(), 4 * n * rows) == 0);
            }
            api.quiesce();
            x.data()[(most - 1) * cols + cols / 2] = std::nanf("");
            Fenced<float> y(most * rows);
            CHECK(api.linear_f32_f32(handle.get, x.data(), most * cols, most, y.data(), most * rows) ==
                  BNB_NON_FINITE);
            CHECK(y.untouched());
            std::copy(values.begin(), values.end(), x.data());
        }
    }
    CHECK(api.matmul_bytes(nullptr) == 0);
}

// Constant codes against constant extremes: what wraps an int16 lane if anything does.
void test_extremes(const bnb_api &api) {
    const bnb_layout shapes[] = {
        i2s(5, 128),
        i2s(4, 1024),
        i2s(6, 2048),
        i2s(5, 8192),
        {BNB_FORMAT_TL1, 64, 128, 8, 64, 1024},
        {BNB_FORMAT_TL1, 64, 128, 4, 64, 1024},
        {BNB_FORMAT_TL1, 64, 1024, 8, 64, 2048},
        {BNB_FORMAT_TL2, 64, 192, 8, 64, 2048},
        {BNB_FORMAT_TL2, 32, 1536, 8, 32, 3072 + 32},
    };
    for (const bnb_layout &layout : shapes) {
        for (const int code : {-1, 0, 1, 2}) { // 2: alternating +1 and -1, to meet an alternating input
            std::vector<int8_t> codes(layout.rows * layout.cols, static_cast<int8_t>(code));
            for (size_t i = 0; code == 2 && i < codes.size(); ++i) {
                codes[i] = i % 2 == 0 ? 1 : -1;
            }
            Matrix matrix(layout, codes, 1.0f);
            const Handle handle(api, matrix.weights(), 11);
            for (const int value : {-128, -127, 1, 127}) {
                for (const bool alternate : {false, true}) {
                    context = std::string(api.name) + " extremes " + text(layout) + " code " +
                              std::to_string(code) + " value " + std::to_string(value);
                    for (const size_t n : {1, 2, 4, 8, 11}) {
                        Fenced<int8_t> q(n * layout.cols);
                        for (size_t i = 0; i < q.size(); ++i) {
                            const int sign = alternate && i % 2 == 1 && value != -128 ? -1 : 1;
                            q.data()[i] = static_cast<int8_t>(sign * value);
                        }
                        Fenced<int32_t> out(n * layout.rows);
                        CHECK(api.matmul_i8_i32(handle.get, q.data(), q.size(), n, out.data(), out.size()) ==
                              BNB_OK);
                        CHECK(same_bits(out.values(), naive::products(layout, codes, q.data(), n)));
                    }
                }
            }
        }
    }
}

void test_linear(const bnb_api &api) {
    for (const bnb_layout &layout : layouts()) {
        context = std::string(api.name) + " linear " + text(layout);
        Matrix matrix(layout);
        const Handle handle(api, matrix.weights(), 6);
        const size_t n = 6, cols = layout.cols;
        std::vector<float> values(n * cols);
        for (size_t i = 0; i < values.size(); ++i) {
            // Ordinary; outliers; zero; so small that 127 / max overflows; subnormal; constant (the int16
            // case).
            const size_t row = i / cols;
            values[i] = row == 0   ? random_float(2.0f)
                        : row == 1 ? random_float(i % 97 == 0 ? 1e30f : 1.0f)
                        : row == 2 ? 0.0f
                        : row == 3 ? random_float(1e-37f)
                        : row == 4 ? random_float(1e-42f)
                                   : 1.0f;
        }
        Fenced<float> x(values, 1);
        for (const size_t count : {size_t{1}, size_t{2}, n}) {
            Fenced<float> y(count * layout.rows);
            CHECK(api.linear_f32_f32(handle.get, x.data(), count * cols, count, y.data(), y.size()) ==
                  BNB_OK);
            CHECK(y.fence_holds() && x.fence_holds());
            CHECK(same_bits(y.values(), naive::linear(layout, matrix.codes, matrix.scale, x.data(), count)));
        }
        // An all-zero row gives +0 in every format.
        Fenced<float> y(layout.rows);
        CHECK(api.linear_f32_f32(handle.get, x.data() + 2 * cols, cols, 1, y.data(), y.size()) == BNB_OK);
        CHECK(same_bits(y.values(), std::vector<float>(layout.rows, 0.0f)));
    }
}

void test_bad_layouts(const bnb_api &api) {
    struct Case {
        bnb_layout layout;
        bnb_status status;
    };
    const uint64_t huge = uint64_t{1} << 32;
    const Case cases[] = {
        {{0, 0, 0, 0, 1, 128}, BNB_INVALID_ARGUMENT},
        {{4, 0, 0, 0, 1, 128}, BNB_INVALID_ARGUMENT},
        {i2s(0, 128), BNB_UNSUPPORTED},
        {i2s(1, 0), BNB_UNSUPPORTED},
        {i2s(1, 127), BNB_UNSUPPORTED},
        {i2s(1, 129), BNB_UNSUPPORTED},
        {i2s(2, 64), BNB_UNSUPPORTED},
        {i2s(huge, huge), BNB_UNSUPPORTED},
        {i2s(UINT64_MAX, 128), BNB_UNSUPPORTED},
        {{BNB_FORMAT_I2_S, 32, 0, 0, 32, 128}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL1, 0, 0, 0, 64, 64}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL1, 64, 64, 2, 64, 64}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL1, 48, 64, 8, 48, 64}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL1, 32, 64, 4, 64, 64}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL1, 64, 60, 8, 64, 60}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL1, 64, 64, 8, 96, 64}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL1, 64, 64, 8, 64, 96}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL2, 32, 96, 4, 32, 288}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL2, 48, 96, 8, 48, 288}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL2, 32, 92, 8, 32, 276}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL2, 32, 0, 8, 32, 288}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL2, 0, 96, 8, 32, 288}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL2, 64, 96, 8, 96, 288}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL2, 32, 96, 8, 32, 304}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL2, 32, 96, 8, 32, 192}, BNB_UNSUPPORTED},
        {{BNB_FORMAT_TL2, 32, 3072, 8, 32, 2816}, BNB_UNSUPPORTED}, // data beyond the format's size rule
    };
    for (const Case &c : cases) {
        context = std::string(api.name) + " bad layout " + text(c.layout);
        const float src[128] = {};
        uint8_t dst[128] = {};
        float scale = 0.0f, out[128];
        CHECK(api.quantize_weights(&c.layout, BNB_RULE_ABSMEAN, src, 128, dst, 64, &scale) == c.status);
        const bnb_weights weights = {c.layout, dst, sizeof dst, 0.0f};
        CHECK(api.dequantize_weights(&weights, out, 128) == c.status);
        bnb_matmul *handle = nullptr;
        CHECK(api.matmul_prepare(&weights, 1, 1, &handle) == c.status);
        CHECK(handle == nullptr);
    }
}

void test_bad_weight_arguments(const bnb_api &api) {
    context = std::string(api.name) + " bad weight arguments";
    for (const bnb_layout &layout : {i2s(3, 256), bnb_layout{BNB_FORMAT_TL2, 32, 96, 8, 32, 320}}) {
        Matrix matrix(layout);
        const size_t n = layout.rows * layout.cols, n_bytes = matrix.bytes.size();
        const std::vector<float> src(n, 0.5f);
        Fenced<uint8_t> dst(n_bytes + 1);
        Fenced<float> floats(n + 1);
        float scale = 7.0f;
        const auto quantize = [&](const bnb_layout *l, uint32_t rule, const float *s, uint64_t n_src,
                                  uint8_t *d, uint64_t n_dst, float *out) {
            return api.quantize_weights(l, rule, s, n_src, d, n_dst, out) == BNB_INVALID_ARGUMENT;
        };
        CHECK(quantize(nullptr, 1, src.data(), n, dst.data(), n_bytes, &scale));
        CHECK(quantize(&layout, 0, src.data(), n, dst.data(), n_bytes, &scale));
        CHECK(quantize(&layout, 3, src.data(), n, dst.data(), n_bytes, &scale));
        CHECK(quantize(&layout, 1, nullptr, n, dst.data(), n_bytes, &scale));
        CHECK(quantize(&layout, 1, src.data(), n - 1, dst.data(), n_bytes, &scale));
        CHECK(quantize(&layout, 1, src.data(), n + 1, dst.data(), n_bytes, &scale));
        CHECK(quantize(&layout, 1, src.data(), n, nullptr, n_bytes, &scale));
        CHECK(quantize(&layout, 1, src.data(), n, dst.data(), n_bytes - 1, &scale));
        CHECK(quantize(&layout, 1, src.data(), n, dst.data(), n_bytes + 1, &scale));
        CHECK(quantize(&layout, 1, src.data(), n, dst.data(), n_bytes, nullptr));
        CHECK(dst.untouched() && scale == 7.0f);

        // Weights that lie about themselves, to both of their readers.
        const float infinity = std::numeric_limits<float>::infinity();
        std::vector<bnb_weights> liars(8, matrix.weights());
        liars[0].bytes = nullptr;
        liars[1].n_bytes -= 1;
        liars[2].n_bytes += 1;
        liars[3].n_bytes = 0;
        const float scales[] = {std::nanf(""), infinity, -matrix.scale, -0.0f};
        std::vector<std::vector<uint8_t>> copies(4, matrix.bytes.values());
        for (size_t i = 0; i < 4; ++i) {
            std::memcpy(&copies[i][naive::scale_offset(layout)], &scales[i], sizeof(float));
            liars[4 + i].bytes = copies[i].data();
            liars[4 + i].scale = scales[i];
        }
        liars.push_back(matrix.weights()); // two scales that differ
        liars.back().scale = 2.0f * matrix.scale;
        for (const bnb_weights &liar : liars) {
            bnb_matmul *handle = nullptr;
            CHECK(api.dequantize_weights(&liar, floats.data(), n) == BNB_INVALID_ARGUMENT);
            CHECK(api.matmul_prepare(&liar, 1, 1, &handle) == BNB_INVALID_ARGUMENT);
            CHECK(handle == nullptr);
        }
        const bnb_weights good = matrix.weights();
        CHECK(api.dequantize_weights(nullptr, floats.data(), n) == BNB_INVALID_ARGUMENT);
        CHECK(api.dequantize_weights(&good, nullptr, n) == BNB_INVALID_ARGUMENT);
        CHECK(api.dequantize_weights(&good, floats.data(), n - 1) == BNB_INVALID_ARGUMENT);
        CHECK(api.dequantize_weights(&good, floats.data(), n + 1) == BNB_INVALID_ARGUMENT);
        CHECK(floats.untouched());
    }
}

void test_bad_activation_arguments(const bnb_api &api) {
    context = std::string(api.name) + " bad activation arguments";
    const std::vector<float> x(65, 1.0f);
    Fenced<int8_t> q(65);
    Fenced<float> scale(3);
    Fenced<int32_t> sum(3);
    const auto answer = [&](const float *in, uint64_t n_x, uint64_t rows, uint64_t cols, int8_t *codes,
                            uint64_t n_q, float *scales, uint64_t n_scale, int32_t *sums, uint64_t n_sum) {
        return api.quantize_activations(in, n_x, rows, cols, codes, n_q, scales, n_scale, sums, n_sum);
    };
    int8_t *codes = q.data();
    float *scales = scale.data();
    int32_t *sums = sum.data();
    CHECK(answer(nullptr, 64, 2, 32, codes, 64, scales, 2, sums, 2) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 64, 2, 32, nullptr, 64, scales, 2, sums, 2) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 64, 2, 32, codes, 64, nullptr, 2, sums, 2) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 64, 2, 32, codes, 64, scales, 2, nullptr, 2) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 63, 2, 32, codes, 64, scales, 2, sums, 2) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 65, 2, 32, codes, 64, scales, 2, sums, 2) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 64, 2, 32, codes, 63, scales, 2, sums, 2) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 64, 2, 32, codes, 65, scales, 2, sums, 2) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 64, 2, 32, codes, 64, scales, 1, sums, 2) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 64, 2, 32, codes, 64, scales, 2, sums, 3) == BNB_INVALID_ARGUMENT);
    const uint64_t half = uint64_t{1} << 63; // 2^63 * 2 wraps to 0
    CHECK(answer(x.data(), 0, 2, half, codes, 0, scales, 2, sums, 2) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 0, half, 2, codes, 0, scales, half, sums, half) == BNB_INVALID_ARGUMENT);
    CHECK(answer(x.data(), 0, 2, 0, codes, 0, scales, 2, sums, 2) == BNB_UNSUPPORTED);
    CHECK(answer(x.data(), 0, 0, 32, codes, 0, scales, 0, sums, 0) == BNB_OK);
    CHECK(answer(nullptr, 0, 0, 32, nullptr, 0, nullptr, 0, nullptr, 0) == BNB_OK);
    CHECK(q.untouched() && scale.untouched() && sum.untouched());
}

void test_bad_matmul_arguments(const bnb_api &api) {
    context = std::string(api.name) + " bad matmul arguments";
    Matrix matrix(i2s(3, 256));
    const bnb_weights weights = matrix.weights();
    bnb_matmul *none = nullptr;
    CHECK(api.matmul_prepare(nullptr, 1, 1, &none) == BNB_INVALID_ARGUMENT);
    CHECK(api.matmul_prepare(&weights, 1, 1, nullptr) == BNB_INVALID_ARGUMENT);
    CHECK(api.matmul_prepare(&weights, 1, 0, &none) == BNB_UNSUPPORTED);
    CHECK(api.matmul_prepare(&weights, 1, UINT32_MAX, &none) == BNB_UNSUPPORTED);
    CHECK(api.matmul_prepare(&weights, UINT64_MAX, 1, &none) == BNB_INVALID_ARGUMENT);
    CHECK(api.matmul_prepare(&weights, uint64_t{1} << 62, 1, &none) == BNB_INVALID_ARGUMENT);
#ifndef __SANITIZE_ADDRESS__ // the sanitizer ends the program at such a request
    CHECK(api.matmul_prepare(&weights, uint64_t{1} << 52, 1, &none) == BNB_OUT_OF_MEMORY);
#endif
    CHECK(none == nullptr);

    const Handle empty(api, weights, 0);
    CHECK(empty.status == BNB_OK);
    CHECK(api.matmul_i8_i32(empty.get, nullptr, 0, 0, nullptr, 0) == BNB_OK);

    const Handle handle(api, weights, 2);
    const std::vector<int8_t> q(3 * 256, 1);
    const std::vector<float> x(3 * 256, 1.0f);
    Fenced<int32_t> out(9);
    Fenced<float> y(9);
    struct Case {
        bool input, output;
        uint64_t n_in, n, n_out;
    };
    const Case cases[] = {
        {false, true, 512, 2, 6}, {true, false, 512, 2, 6}, {true, true, 511, 2, 6},
        {true, true, 513, 2, 6},  {true, true, 512, 2, 5},  {true, true, 512, 2, 7},
        {true, true, 768, 3, 9},  {true, true, 256, 2, 6},  {true, true, 0, uint64_t{1} << 56, 0},
        {true, true, 1, 0, 0},    {true, true, 0, 0, 1},
    };
    for (const Case &c : cases) {
        CHECK(api.matmul_i8_i32(handle.get, c.input ? q.data() : nullptr, c.n_in, c.n,
                                c.output ? out.data() : nullptr, c.n_out) == BNB_INVALID_ARGUMENT);
        CHECK(api.linear_f32_f32(handle.get, c.input ? x.data() : nullptr, c.n_in, c.n,
                                 c.output ? y.data() : nullptr, c.n_out) == BNB_INVALID_ARGUMENT);
    }
    CHECK(api.matmul_i8_i32(nullptr, q.data(), 512, 2, out.data(), 6) == BNB_INVALID_ARGUMENT);
    CHECK(api.linear_f32_f32(nullptr, x.data(), 512, 2, y.data(), 6) == BNB_INVALID_ARGUMENT);
    CHECK(api.matmul_i8_i32(handle.get, q.data(), 0, 0, out.data(), 0) == BNB_OK);
    CHECK(api.linear_f32_f32(handle.get, nullptr, 0, 0, nullptr, 0) == BNB_OK);
    CHECK(out.untouched() && y.untouched());
}

void test_non_finite(const bnb_api &api) {
    const bnb_layout layout = i2s(3, 384);
    Matrix matrix(layout);
    const Handle handle(api, matrix.weights(), 3);
    const size_t n = 3 * 384;
    for (const float bad : {std::nanf(""), -std::nanf(""), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
        for (const size_t at : {size_t{0}, size_t{1}, size_t{31}, size_t{32}, size_t{383}, n - 33, n - 1}) {
            context = std::string(api.name) + " non-finite at " + std::to_string(at);
            std::vector<float> x(n, 0.25f);
            x[at] = bad;
            Fenced<uint8_t> packed(naive::packed_bytes(layout));
            Fenced<int8_t> q(n);
            Fenced<float> scale(3), y(9);
            Fenced<int32_t> sum(3);
            float weight_scale = 7.0f;
            for (const uint32_t rule : {BNB_RULE_ABSMEAN, BNB_RULE_MAXABS}) {
                CHECK(api.quantize_weights(&layout, rule, x.data(), n, packed.data(), packed.size(),
                                           &weight_scale) == BNB_NON_FINITE);
            }
            CHECK(api.quantize_activations(x.data(), n, 3, 384, q.data(), n, scale.data(), 3, sum.data(),
                                           3) == BNB_NON_FINITE);
            CHECK(api.linear_f32_f32(handle.get, x.data(), n, 3, y.data(), 9) == BNB_NON_FINITE);
            CHECK(packed.untouched() && q.untouched() && scale.untouched() && sum.untouched());
            CHECK(y.untouched() && weight_scale == 7.0f);
        }
    }
    context = std::string(api.name) + " infinite scale";
    {
        const std::vector<float> largest(n, std::numeric_limits<float>::max());
        Fenced<uint8_t> packed(naive::packed_bytes(layout));
        float weight_scale = 7.0f;
        CHECK(api.quantize_weights(&layout, BNB_RULE_ABSMEAN, largest.data(), n, packed.data(), packed.size(),
                                   &weight_scale) == BNB_UNSUPPORTED);
        CHECK(packed.untouched() && weight_scale == 7.0f);
    }
    context = std::string(api.name) + " odd number of columns";
    std::vector<float> x(33, 0.25f);
    x[32] = std::nanf("");
    std::vector<int8_t> q(33);
    float scale = 0.0f;
    int32_t sum = 0;
    CHECK(api.quantize_activations(x.data(), 33, 1, 33, q.data(), 33, &scale, 1, &sum, 1) == BNB_NON_FINITE);
    x[32] = std::numeric_limits<float>::max();
    CHECK(api.quantize_activations(x.data(), 33, 1, 33, q.data(), 33, &scale, 1, &sum, 1) == BNB_OK);
    CHECK(q[32] == 127 && q[0] == 0 && sum == 127);
}

void check_damage(const bnb_api &api, Matrix &matrix, bool invalid) {
    const bnb_status expected = invalid ? BNB_INVALID_DATA : BNB_OK;
    const bnb_weights weights = matrix.weights();
    std::vector<float> floats(matrix.layout.rows * matrix.layout.cols);
    CHECK(api.dequantize_weights(&weights, floats.data(), floats.size()) == expected);
    const Handle handle(api, weights, 1);
    CHECK(handle.status == expected);
    CHECK((handle.get == nullptr) == invalid);
}

void test_unused_codes(const bnb_api &api) {
    {
        Matrix matrix(i2s(5, 384));
        for (size_t byte = 0; byte < 5 * 96; byte += byte < 64 || byte > 400 ? 1 : 31) {
            for (int shift = 0; shift < 8; shift += 2) {
                context = std::string(api.name) + " I2_S code 3 in byte " + std::to_string(byte);
                const uint8_t before = matrix.bytes.data()[byte];
                matrix.bytes.data()[byte] = static_cast<uint8_t>(before | 3u << shift);
                check_damage(api, matrix, true);
                matrix.bytes.data()[byte] = before;
            }
        }
        check_damage(api, matrix, false);
    }
    {
        Matrix matrix({BNB_FORMAT_TL1, 64, 64, 8, 128, 128});
        for (const size_t byte : {size_t{0}, size_t{15}, size_t{16}, size_t{2047}, size_t{4095}}) {
            for (unsigned nibble = 0; nibble < 16; ++nibble) {
                context = std::string(api.name) + " TL1 index " + std::to_string(nibble);
                const uint8_t before = matrix.bytes.data()[byte];
                for (const bool high : {false, true}) {
                    matrix.bytes.data()[byte] =
                        static_cast<uint8_t>(high ? (before & 15u) | nibble << 4 : (before & 240u) | nibble);
                    check_damage(api, matrix, nibble > 8);
                }
                matrix.bytes.data()[byte] = before;
            }
        }
    }
    const bnb_layout layout = {BNB_FORMAT_TL2, 32, 96, 8, 64, 320};
    Matrix matrix(layout);
    const size_t magnitudes = 288 * 64 / 6, signs = 288 * 64 / 24, pairs = 32 * 64 / 4;
    for (const size_t byte :
         {size_t{0}, size_t{31}, magnitudes - 1, magnitudes + signs, magnitudes + signs + pairs - 1}) {
        for (unsigned nibble = 0; nibble < 16; ++nibble) {
            context = std::string(api.name) + " TL2 nibble " + std::to_string(nibble);
            const uint8_t before = matrix.bytes.data()[byte];
            for (const bool high : {false, true}) {
                matrix.bytes.data()[byte] =
                    static_cast<uint8_t>(high ? (before & 15u) | nibble << 4 : (before & 240u) | nibble);
                check_damage(api, matrix, nibble > (byte < magnitudes ? 13u : 8u));
            }
            matrix.bytes.data()[byte] = before;
        }
    }
    // Signs of zeros and padding mean nothing.
    context = std::string(api.name) + " TL2 padding and signs of zeros";
    Matrix zeros(layout, std::vector<int8_t>(64 * 320, 0), 1.0f);
    std::memset(zeros.bytes.data() + magnitudes, 0xff, signs);
    for (size_t i = magnitudes + signs + pairs; i < naive::scale_offset(layout); ++i) {
        zeros.bytes.data()[i] = 0xff;
    }
    std::memset(zeros.bytes.data() + naive::scale_offset(layout) + 4, 0xff, 28);
    check_damage(api, zeros, false);
    const Handle handle(api, zeros.weights(), 1);
    const std::vector<int8_t> q(320, -128);
    std::vector<int32_t> out(64, 1);
    CHECK(api.matmul_i8_i32(handle.get, q.data(), 320, 1, out.data(), 64) == BNB_OK);
    CHECK(same_bits(out, std::vector<int32_t>(64, 0)));
}

} // namespace

int main() {
    std::vector<std::string> tested;
    for (const bnb_api *api : available_backends()) {
        context = api->name;
        test_identity(*api);
        test_packing(*api);
        test_weight_rules(*api);
        test_activations(*api);
        test_products(*api);
        test_large_products(*api);
        test_threads(*api);
        test_extremes(*api);
        test_linear(*api);
        test_bad_layouts(*api);
        test_bad_weight_arguments(*api);
        test_bad_activation_arguments(*api);
        test_bad_matmul_arguments(*api);
        test_non_finite(*api);
        test_unused_codes(*api);
        tested.push_back(api->name);
    }
    context = "enumeration";
    CHECK(all_backends_tested(tested));
    CHECK(bitnet_cpp_reference(6) == nullptr && bitnet_cpp_reference(UINT32_MAX) == nullptr);
    std::printf("%zu passed, %zu failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
