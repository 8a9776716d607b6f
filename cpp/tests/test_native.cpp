// Native float products: to the bit where every sum is an integer that the type holds, else within the bounds
// of docs/NUMERICS.md, on small, ordinary and large activations. The matrix stands at an odd address among
// bytes that are no numbers, as does x.

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "backends.hpp"
#include "bitnet_backend.h"
#include "check.hpp"
#include "naive_model.hpp"

namespace {

constexpr float kUntouched = 12345.0f;

// A matrix of either type: its bytes, between others that are NaN, and its values.
struct Matrix {
    uint32_t type;
    size_t rows, cols;
    std::vector<uint8_t> bytes;
    std::vector<float> values;

    bnb_float_matrix raw() const {
        return {type, BNB_ARITHMETIC_NATIVE, rows, cols, bytes.data() + kAround, bytes.size() - 2 * kAround};
    }
    static constexpr size_t kAround = 131;
};

template <class Draw> Matrix matrix(uint32_t type, size_t rows, size_t cols, Draw draw) {
    Matrix m = {type, rows, cols, std::vector<uint8_t>(Matrix::kAround, 0xff), {}};
    for (size_t at = 0; at < rows * cols; ++at) {
        float value = draw();
        if (type == BNB_TYPE_F16) {
            value = naive::half(value);
            naive::append(m.bytes, naive::half_bits(value));
        } else {
            uint32_t bits = 0;
            std::memcpy(&bits, &value, 4);
            bits &= 0xffff0000u; // any value of the type will do
            std::memcpy(&value, &bits, 4);
            naive::append(m.bytes, static_cast<uint16_t>(bits >> 16));
        }
        m.values.push_back(value);
    }
    m.bytes.insert(m.bytes.end(), Matrix::kAround, 0xff);
    return m;
}

// What an output may be, and how far from it.
struct Expected {
    double exact, bound;
};

int exponent_above(double value, int least) {
    while (value >= std::ldexp(1.0, least)) {
        ++least;
    }
    return least;
}

Expected expected(const Matrix &m, size_t row, const float *x, double largest_weight) {
    double exact = 0, products = 0, weights = 0, activations = 0, largest = 0;
    for (size_t k = 0; k < m.cols; ++k) {
        const double w = m.values[row * m.cols + k], value = x[k];
        exact += w * value;
        products += std::fabs(w * value);
        weights += std::fabs(w);
        activations += std::fabs(value);
        largest = std::fmax(largest, std::fabs(value));
    }
    const double u = 0x1p-24, roundings = 2.0 * static_cast<double>((m.cols + 31) / 32) + 8;
    const double growth = 1 / (1 - roundings * u), twice = 2.0 * static_cast<double>(m.cols);
    const double last = u * std::fabs(exact) + 0x1p-149;
    if (m.type == BNB_TYPE_BF16) {
        return {exact,
                ((1 + 0x1p-8) * growth - 1) * products + 0x1p-125 * (weights + activations + twice) + last};
    }
    const int a = exponent_above(largest_weight, -14), b = exponent_above(largest, -126);
    const double unit = std::ldexp(1.0, -24 - std::min(15 - b, 10 - a - b));
    return {exact, (std::pow(1 + 0x1p-11, 14) * growth - 1) * products + unit * (weights + twice) + last};
}

// Every batch up to that of x, on one to three threads; judge(row, column, y) says whether an output is
// right.
template <class Judge>
void each_output(const bnb_api &api, const Matrix &m, const std::vector<float> &x, Judge judge) {
    const bnb_float_matrix raw = m.raw();
    const size_t n_most = x.size() / m.cols;
    std::vector<float> among = x;
    among.insert(among.begin(), NAN);
    among.insert(among.end(), 40, NAN);
    for (uint32_t threads = 1; threads <= 3; ++threads) {
        bnb_float_matmul *handle = nullptr;
        CHECK(api.float_prepare(&raw, n_most, threads, &handle) == BNB_OK);
        for (size_t n = 0; n <= n_most; ++n) {
            context = std::string(api.name) + " native type " + std::to_string(m.type) + " " +
                      std::to_string(m.rows) + "x" + std::to_string(m.cols) + " n " + std::to_string(n) +
                      " threads " + std::to_string(threads);
            std::vector<float> y(n * m.rows + 2, kUntouched);
            CHECK(api.float_matmul(handle, among.data() + 1, n * m.cols, n, y.data() + 1, n * m.rows) ==
                  BNB_OK);
            CHECK(y.front() == kUntouched && y.back() == kUntouched);
            bool right = true;
            for (size_t at = 0; at < n * m.rows; ++at) {
                right = right && judge(at % m.rows, at / m.rows, y[at + 1]);
            }
            CHECK(right);
        }
        api.float_free(handle);
    }
}

float small_integer() {
    return static_cast<float>(random_bits() % 5) - 2.0f;
}

void test_integers(const bnb_api &api, uint32_t type) {
    const auto check_shape = [&](size_t rows, size_t cols, size_t n) {
        const Matrix m = matrix(type, rows, cols, small_integer);
        std::vector<float> x(n * cols);
        for (float &value : x) {
            value = small_integer();
        }
        each_output(api, m, x, [&](size_t row, size_t column, float y) {
            return y == expected(m, row, &x[column * cols], 2).exact;
        });
    };
    // At +-1 of a vector, of a block of twelve, and of a panel.
    for (const size_t cols : {1, 2, 15, 16, 17, 31, 32, 33, 63, 65, 383, 384, 385, 769}) {
        for (const size_t rows : {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 33}) {
            check_shape(rows, cols, rows % 4 == 1 ? 9 : 2);
        }
    }
    check_shape(5, 4095, 17);
    check_shape(6, 4096, 5);
    check_shape(3, 4097, 6);
    check_shape(9, 8225, 8);
}

void test_bounds(const bnb_api &api, uint32_t type) {
    for (const float scale : {1e-3f, 1.0f, 1e3f}) {
        const auto draw = [] { return random_float(3.0f); };
        const Matrix m = matrix(type, 13, 1000, draw);
        std::vector<float> x(6 * m.cols);
        for (float &value : x) {
            value = random_float(3.0f) * scale;
        }
        double share = 0;
        each_output(api, m, x, [&](size_t row, size_t column, float y) {
            const Expected e = expected(m, row, &x[column * m.cols], 2.999);
            share = std::fmax(share, std::fabs(y - e.exact) / e.bound);
            return std::isfinite(y) && std::fabs(y - e.exact) <= e.bound;
        });
        CHECK(share > 1e-3); // 16 bits of x: some of the bound is used
    }
    // All as large as the type holds, and of one sign: F16 would overflow at once if it were not scaled.
    for (const float activation : {0x1p-149f, 1e-30f, 0.9f}) {
        const float most = type == BNB_TYPE_F16 ? 65504.0f : 0x1p110f;
        const Matrix m = matrix(type, 5, 800, [&] { return most; });
        const std::vector<float> x(3 * m.cols, activation);
        each_output(api, m, x, [&](size_t row, size_t column, float y) {
            const Expected e = expected(m, row, &x[column * m.cols], most);
            return std::isfinite(y) && std::fabs(y - e.exact) <= e.bound;
        });
    }
}

void test_non_finite(const bnb_api &api, uint32_t type) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
        Matrix m = matrix(type, 6, 70, [] { return random_float(2.0f); });
        std::vector<float> x(5 * m.cols, 0.5f);
        x[2 * m.cols + 69] = bad;
        each_output(api, m, x, [&](size_t row, size_t column, float y) {
            if (column == 2) {
                return !std::isfinite(y);
            }
            const Expected e = expected(m, row, &x[column * m.cols], 2);
            return std::fabs(y - e.exact) <= e.bound;
        });
    }
}

// The CPU, asked here a second time.
bool runs_here(const bnb_api &api, [[maybe_unused]] uint32_t type) {
    if (std::string(api.name) != "cpp-avx512vnni") {
        return false;
    }
#if defined(__x86_64__)
    if (type == BNB_TYPE_BF16) {
        return __builtin_cpu_supports("avx512bf16");
    }
#if defined(__clang__) ? __clang_major__ >= 14 : __GNUC__ >= 12
    return type == BNB_TYPE_F16 && __builtin_cpu_supports("avx512fp16");
#endif
#endif
    return false;
}

bool offers(const bnb_api &api, uint32_t type) {
    context = std::string(api.name) + " offers type " + std::to_string(type);
    const std::vector<uint8_t> bytes(1024);
    const uint64_t row_bytes = type == BNB_TYPE_F32    ? 1024
                               : type == BNB_TYPE_Q8_0 ? 272
                               : type == BNB_TYPE_Q6_K ? 210
                                                       : 512;
    const bnb_float_matrix raw = {type, BNB_ARITHMETIC_NATIVE, 1, 256, bytes.data(), row_bytes};
    bnb_float_matmul *handle = nullptr;
    const bnb_status status = api.float_prepare(&raw, 1, 1, &handle);
    CHECK(status == BNB_OK || status == BNB_UNSUPPORTED);
    CHECK((handle != nullptr) == (status == BNB_OK));
    api.float_free(handle);
    return status == BNB_OK;
}

} // namespace

int main() {
    std::vector<std::string> tested;
    for (const bnb_api *api : available_backends()) {
        for (const uint32_t type : {BNB_TYPE_F32, BNB_TYPE_Q8_0, BNB_TYPE_Q6_K}) {
            CHECK(!offers(*api, type));
        }
        for (const uint32_t type : {BNB_TYPE_F16, BNB_TYPE_BF16}) {
            const bool offered = offers(*api, type);
            CHECK(offered == runs_here(*api, type));
            if (!offered) {
                std::printf("%s has no native arithmetic of type %u here\n", api->name, type);
                continue;
            }
            test_integers(*api, type);
            test_bounds(*api, type);
            test_non_finite(*api, type);
        }
        api->quiesce();
        tested.push_back(api->name);
    }
    context = "enumeration";
    CHECK(all_backends_tested(tested));
    std::printf("native: %zu passed, %zu failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}
