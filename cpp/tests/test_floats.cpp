// Float products against naive_model.hpp, bit for bit: every type, sides at +-1 of the lanes and of the
// groups of rows, every number of columns of a tile, one to three threads. The matrix and x stand at odd
// addresses.

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

std::vector<float> product(const naive::FloatTensor &t, const std::vector<float> &x) {
    std::vector<float> y;
    for (size_t i = 0; i < x.size() / t.cols; ++i) {
        for (size_t row = 0; row < t.rows; ++row) {
            y.push_back(naive::row_product(t, row, &x[i * t.cols]));
        }
    }
    return y;
}

class Handle {
  public:
    Handle(const bnb_api &api, const bnb_float_matrix &matrix, uint64_t n_max, uint32_t threads) : api_(api) {
        status = api.float_prepare(&matrix, n_max, threads, &get);
    }
    ~Handle() { api_.float_free(get); }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;

    bnb_status status;
    bnb_float_matmul *get = nullptr;

  private:
    const bnb_api &api_;
};

void check_tensor(const bnb_api &api, const naive::FloatTensor &t, const std::vector<float> &all,
                  size_t n_most) {
    std::vector<uint8_t> bytes(t.bytes.size() + 1);
    std::copy(t.bytes.begin(), t.bytes.end(), bytes.begin() + 1);
    const bnb_float_matrix matrix = {t.type, BNB_ARITHMETIC_F32, t.rows,
                                     t.cols, bytes.data() + 1,   t.bytes.size()};
    const std::vector<float> expected = product(t, all);
    for (uint32_t threads = 1; threads <= 3; ++threads) {
        const Handle handle(api, matrix, n_most, threads);
        CHECK(handle.status == BNB_OK);
        for (size_t n = 0; n <= n_most; ++n) {
            context = std::string(api.name) + " type " + std::to_string(t.type) + " " +
                      std::to_string(t.rows) + "x" + std::to_string(t.cols) + " n " + std::to_string(n) +
                      " threads " + std::to_string(threads);
            std::vector<float> y(n * t.rows + 2, kUntouched);
            CHECK(api.float_matmul(handle.get, all.data(), n * t.cols, n, y.data() + 1, n * t.rows) ==
                  BNB_OK);
            CHECK(y.front() == kUntouched && y.back() == kUntouched);
            y.erase(y.begin());
            y.pop_back();
            CHECK(same_bits(
                y, std::vector<float>(expected.begin(), expected.begin() + static_cast<long>(y.size()))));
        }
    }
}

void test_products(const bnb_api &api) {
    const struct {
        uint32_t type;
        std::vector<size_t> cols;
    } types[] = {
        {BNB_TYPE_F32, {1, 7, 8, 31, 32, 33, 63, 65, 255, 256, 257, 300, 545}},
        {BNB_TYPE_F16, {1, 7, 8, 31, 32, 33, 63, 65, 255, 256, 257, 300, 545}},
        {BNB_TYPE_BF16, {1, 9, 31, 33, 64, 288, 300}},
        {BNB_TYPE_Q8_0, {32, 64, 96, 288}},
        {BNB_TYPE_Q6_K, {256, 768}},
    };
    for (const auto &entry : types) {
        for (const size_t cols : entry.cols) {
            for (const size_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 50}) {
                const size_t n = rows % 8 == 1 ? 7 : 2;
                std::vector<float> x(n * cols);
                for (float &value : x) {
                    value = random_float(2.0f);
                }
                check_tensor(api, naive::float_tensor(entry.type, rows, cols, random_bits), x, n);
            }
        }
    }
}

// Signs of zeros that a padded tail would lose; subnormals; activations that Q8_0 cannot scale.
void test_corners(const bnb_api &api) {
    for (const size_t cols : {5, 40, 300}) {
        naive::FloatTensor t = {BNB_TYPE_F32, 6, cols, std::vector<float>(6 * cols, -1e-30f), {}, {}, {}};
        for (const float value : t.values) {
            naive::append(t.bytes, value);
        }
        check_tensor(api, t, std::vector<float>(2 * cols, 1e-30f), 2);
    }
    for (const uint32_t type : {BNB_TYPE_F16, BNB_TYPE_Q8_0}) {
        const naive::FloatTensor t = naive::float_tensor(type, 9, 64, random_bits);
        for (const float scale : {0.0f, 1e-45f, 1e-38f, 1e-36f, 1e-7f, 1e4f, 1e30f}) {
            std::vector<float> x(3 * 64);
            for (size_t i = 0; i < x.size(); ++i) {
                x[i] = i % 5 == 0 ? -0.0f : random_float(scale);
            }
            if (type == BNB_TYPE_F16 || scale < 1e5f) { // beyond, d is infinite and the product no number
                check_tensor(api, t, x, 3);
            }
        }
    }
    // Every float16 is decoded exactly.
    context = std::string(api.name) + " all float16";
    std::vector<uint8_t> bytes;
    std::vector<float> expected;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        naive::append(bytes, static_cast<uint16_t>(bits));
        const uint32_t exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
        float value = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                      : exponent == 31
                          ? fraction == 0 ? INFINITY : NAN
                          : std::ldexp(static_cast<float>(1024 + fraction), static_cast<int>(exponent) - 25);
        expected.push_back(0.0f + (bits >> 15 != 0 ? -value : value)); // fma(w, 1, +0): no negative zero
    }
    const Handle handle(api, {BNB_TYPE_F16, BNB_ARITHMETIC_F32, 0x10000, 1, bytes.data(), bytes.size()}, 1,
                        1);
    std::vector<float> y(0x10000);
    const float one = 1.0f;
    CHECK(api.float_matmul(handle.get, &one, 1, 1, y.data(), y.size()) == BNB_OK);
    bool equal = true;
    for (size_t i = 0; i < y.size(); ++i) {
        equal =
            equal && (std::isnan(expected[i]) ? std::isnan(y[i]) : std::memcmp(&y[i], &expected[i], 4) == 0);
    }
    CHECK(equal);
}

// One value that is no number spoils its own column alone.
void test_non_finite(const bnb_api &api) {
    for (const uint32_t type : {BNB_TYPE_F32, BNB_TYPE_F16, BNB_TYPE_BF16, BNB_TYPE_Q8_0, BNB_TYPE_Q6_K}) {
        const naive::FloatTensor t = naive::float_tensor(type, 5, 256, random_bits);
        const Handle handle(api, {type, BNB_ARITHMETIC_F32, 5, 256, t.bytes.data(), t.bytes.size()}, 2, 1);
        for (const float bad : {NAN, INFINITY, -INFINITY}) {
            context = std::string(api.name) + " non-finite type " + std::to_string(type);
            std::vector<float> x(512, 0.5f), y(10);
            x[40] = bad;
            CHECK(api.float_matmul(handle.get, x.data(), 512, 2, y.data(), 10) == BNB_OK);
            for (size_t i = 0; i < 5; ++i) {
                const bool spoilt =
                    type == BNB_TYPE_Q8_0 || std::isnan(bad) ? std::isnan(y[i]) : !std::isfinite(y[i]);
                CHECK(spoilt && std::isfinite(y[5 + i]));
            }
        }
    }
}

void test_bad_arguments(const bnb_api &api) {
    context = std::string(api.name) + " bad arguments";
    const naive::FloatTensor t = naive::float_tensor(BNB_TYPE_Q8_0, 4, 64, random_bits);
    const bnb_float_matrix good = {t.type, BNB_ARITHMETIC_F32, 4, 64, t.bytes.data(), t.bytes.size()};
    const auto answer = [&](bnb_float_matrix matrix, uint64_t n_max = 1, uint32_t threads = 1) {
        bnb_float_matmul *handle = nullptr;
        const bnb_status status = api.float_prepare(&matrix, n_max, threads, &handle);
        CHECK((handle != nullptr) == (status == BNB_OK));
        api.float_free(handle);
        return status;
    };
    CHECK(answer(good) == BNB_OK);
    bnb_float_matmul *handle = nullptr;
    CHECK(api.float_prepare(nullptr, 1, 1, &handle) == BNB_INVALID_ARGUMENT);
    CHECK(api.float_prepare(&good, 1, 1, nullptr) == BNB_INVALID_ARGUMENT);
    CHECK(answer(good, 1, 0) == BNB_UNSUPPORTED);
    CHECK(answer(good, 1, UINT32_MAX) == BNB_UNSUPPORTED);
    CHECK(answer(good, UINT64_MAX) == BNB_INVALID_ARGUMENT);
    CHECK(answer(good, UINT64_MAX / 256) == BNB_INVALID_ARGUMENT);
    bnb_float_matrix bad = good;
    bad.arithmetic = BNB_ARITHMETIC_NATIVE;
    CHECK(answer(bad) == BNB_UNSUPPORTED);
    bad.arithmetic = 7;
    CHECK(answer(bad) == BNB_INVALID_ARGUMENT);
    for (const uint32_t type : {BNB_TYPE_I2_S, 2u, 99u}) {
        bad = good;
        bad.type = type;
        CHECK(answer(bad) == BNB_INVALID_ARGUMENT);
    }
    for (const auto &sides : {std::pair<uint64_t, uint64_t>{0, 64}, {4, 0}, {4, 63}, {4, 1u << 24}}) {
        bad = good;
        bad.rows = sides.first;
        bad.cols = sides.second;
        CHECK(answer(bad) == BNB_UNSUPPORTED);
    }
    bad = good;
    bad.n_bytes += 1;
    CHECK(answer(bad) == BNB_INVALID_ARGUMENT);
    bad = good;
    bad.rows = UINT64_MAX / 2;
    CHECK(answer(bad) == BNB_INVALID_ARGUMENT);
    bad = good;
    bad.bytes = nullptr;
    CHECK(answer(bad) == BNB_INVALID_ARGUMENT);

    const Handle ready(api, good, 2, 1);
    std::vector<float> x(192), y(12);
    CHECK(api.float_matmul(nullptr, x.data(), 64, 1, y.data(), 4) == BNB_INVALID_ARGUMENT);
    CHECK(api.float_matmul(ready.get, x.data(), 63, 1, y.data(), 4) == BNB_INVALID_ARGUMENT);
    CHECK(api.float_matmul(ready.get, x.data(), 64, 1, y.data(), 5) == BNB_INVALID_ARGUMENT);
    CHECK(api.float_matmul(ready.get, x.data(), 192, 3, y.data(), 12) == BNB_INVALID_ARGUMENT);
    CHECK(api.float_matmul(ready.get, nullptr, 64, 1, y.data(), 4) == BNB_INVALID_ARGUMENT);
    CHECK(api.float_matmul(ready.get, x.data(), 64, 1, nullptr, 4) == BNB_INVALID_ARGUMENT);
    CHECK(api.float_matmul(ready.get, nullptr, 0, 0, nullptr, 0) == BNB_OK);
    api.float_free(nullptr);
}

} // namespace

int main() {
    std::vector<std::string> tested;
    for (const bnb_api *api : available_backends()) {
        test_products(*api);
        test_corners(*api);
        test_non_finite(*api);
        test_bad_arguments(*api);
        api->quiesce();
        tested.push_back(api->name);
    }
    context = "enumeration";
    CHECK(all_backends_tested(tested));
    std::printf("floats: %zu passed, %zu failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}
