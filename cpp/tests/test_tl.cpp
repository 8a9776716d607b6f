// Tests of the SIMD kernels of TL1 and TL2, each instruction set in turn, against a naive packer and a naive
// product, both written from docs/FORMATS.md. Arguments "pack FORMAT ROWS COLS BM BK BY" instead read ternary
// int8 [rows, cols] from stdin and write the packed codes to stdout, to compare the packer with golden files.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../src/product.hpp"
#include "backends.hpp"

namespace {

struct Shape {
    uint32_t format, bm, bk, by;
    size_t rows, cols;
};

// The makers of one instruction set.
struct Isa {
    const char *name;
    bnb_status (*make_tl1)(const bnb_weights &weights, size_t n_max, bnb::Product **product);
    bnb_status (*make_tl2)(const bnb_weights &weights, size_t n_max, bnb::Product **product);
};
const Isa *isa = nullptr; // under test

int passed = 0, failed = 0;

void check(bool ok, const Shape &s, const char *what, size_t n = 0) {
    ok ? passed++ : failed++;
    if (!ok)
        std::printf("FAILED %s TL%d %zux%zu BM %u BK %u BY %u: %s, n %zu\n", isa->name,
                    s.format == BNB_FORMAT_TL1 ? 1 : 2, s.rows, s.cols, s.bm, s.bk, s.by, what, n);
}

uint64_t random_state = 1;
uint32_t random_below(uint32_t limit) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return uint32_t((random_state >> 33) % limit);
}

using Codes = std::vector<int8_t>; // [rows, cols], -1, 0, +1

// One byte of two pair indices: the four weights at `w`.
uint8_t pair_byte(const int8_t *w) {
    return uint8_t((3 * w[0] + w[1] + 4) << 4 | (3 * w[2] + w[3] + 4));
}

std::vector<uint8_t> pack_tl1(const Shape &s, const Codes &w) {
    std::vector<uint8_t> bytes;
    const size_t row_block = 256 / s.by;
    for (size_t tile = 0; tile < s.rows; tile += s.bm)
        for (size_t kb = 0; kb < s.cols; kb += s.bk)
            for (size_t rb = 0; rb < s.bm; rb += row_block)
                for (size_t jb = 0; jb < s.bk; jb += s.by)
                    for (size_t rg = 0; rg < row_block; rg += 16)
                        for (size_t jq = 0; jq < s.by; jq += 4)
                            for (size_t r = 0; r < 16; r++)
                                bytes.push_back(pair_byte(&w[(tile + rb + rg + r) * s.cols + kb + jb + jq]));
    return bytes;
}

// Rows of a 32-row block in the order of their bytes.
size_t tl2_row(size_t position) {
    const size_t first[4] = {0, 16, 8, 24};
    return first[position / 8] + position % 8;
}

std::vector<uint8_t> pack_tl2(const Shape &s, const Codes &w) {
    const size_t three_k = s.cols / s.bk * s.bk;
    std::vector<uint8_t> magnitudes, signs, pairs;
    auto value = [&](size_t row, size_t k) {
        const int8_t *p = &w[row * s.cols + k];
        return 9 * p[0] + 3 * p[1] + p[2];
    };
    for (size_t tile = 0; tile < s.rows; tile += s.bm) {
        for (size_t kb = 0; kb < three_k; kb += s.bk)
            for (size_t rb = tile; rb < tile + s.bm; rb += 32) {
                for (size_t k = kb; k < kb + s.bk; k += 6)
                    for (size_t p = 0; p < 32; p++)
                        magnitudes.push_back(uint8_t(std::abs(value(rb + tl2_row(p), k)) << 4 |
                                                     std::abs(value(rb + tl2_row(p), k + 3))));
                for (size_t k = kb; k < kb + s.bk; k += 24)
                    for (size_t i = 0; i < 16; i++) {
                        uint32_t word = 0;
                        for (size_t g = 0; g < 8; g++) {
                            word |= uint32_t(value(rb + i, k + 3 * g) < 0) << (15 - 2 * g);
                            word |= uint32_t(value(rb + 16 + i, k + 3 * g) < 0) << (14 - 2 * g);
                        }
                        signs.push_back(uint8_t(word));
                        signs.push_back(uint8_t(word >> 8));
                    }
            }
        for (size_t kb = three_k; kb < s.cols; kb += 32)
            for (size_t rb = tile; rb < tile + s.bm; rb += 32)
                for (size_t k = kb; k < kb + 32; k += 4)
                    for (size_t p = 0; p < 32; p++)
                        pairs.push_back(pair_byte(&w[(rb + tl2_row(p)) * s.cols + k]));
    }
    magnitudes.insert(magnitudes.end(), signs.begin(), signs.end());
    magnitudes.insert(magnitudes.end(), pairs.begin(), pairs.end());
    return magnitudes;
}

std::vector<uint8_t> pack(const Shape &s, const Codes &w) {
    return s.format == BNB_FORMAT_TL1 ? pack_tl1(s, w) : pack_tl2(s, w);
}

std::vector<int32_t> oracle(const Shape &s, const Codes &w, const std::vector<int8_t> &q, size_t n) {
    std::vector<int32_t> out(n * s.rows);
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < s.rows; r++)
            for (size_t k = 0; k < s.cols; k++)
                out[i * s.rows + r] += w[r * s.cols + k] * q[i * s.cols + k];
    return out;
}

// Packed bytes at an odd address, in a block of their own so that a sanitizer sees a read past the tensor.
struct Tensor {
    std::unique_ptr<uint8_t[]> block;
    bnb_weights weights;

    Tensor(const Shape &s, const std::vector<uint8_t> &codes, size_t shift)
        : block(new uint8_t[codes.size() + 32 + shift]) {
        std::memcpy(block.get() + shift, codes.data(), codes.size());
        std::memset(block.get() + shift + codes.size(), 0xFF, 32);
        weights = {
            {s.format, s.bm, s.bk, s.by, s.rows, s.cols}, block.get() + shift, codes.size() + 32, 1.0f};
    }
};

bnb_status make(const bnb_weights &weights, size_t n_max, std::unique_ptr<bnb::Product> &product) {
    bnb::Product *p = nullptr;
    const bool tl1 = weights.layout.format == BNB_FORMAT_TL1;
    const bnb_status status = (tl1 ? isa->make_tl1 : isa->make_tl2)(weights, n_max, &p);
    product.reset(p);
    return status;
}

void check_run(const Shape &s, bnb::Product &product, const Codes &w, const std::vector<int8_t> &q, size_t n,
               const char *what) {
    const int32_t canary = 0x5EA1ED;
    std::vector<int32_t> out(n * s.rows + 16, canary);
    // an odd address and an exact end for the activations, too
    std::unique_ptr<int8_t[]> block(new int8_t[n * s.cols + 1]);
    std::memcpy(block.get() + 1, q.data(), n * s.cols);
    product.run_rows(block.get() + 1, n, out.data() + 8, 0, s.rows, 0);
    const std::vector<int32_t> want = oracle(s, w, q, n);
    bool fenced = true;
    for (size_t i = 0; i < 8; i++)
        fenced = fenced && out[i] == canary && out[out.size() - 1 - i] == canary;
    check(fenced, s, "wrote outside the output", n);
    check(std::memcmp(out.data() + 8, want.data(), want.size() * 4) == 0, s, what, n);
}

void fill(std::vector<int8_t> &q, int kind) {
    for (int8_t &v : q)
        v = int8_t(kind == 0   ? int(random_below(256)) - 128
                   : kind == 1 ? -128
                   : kind == 2 ? 127
                   : kind == 3 ? 1
                               : 0);
}

void check_shape(const Shape &s) {
    const size_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33, 96, 97, 98, 131};
    const size_t size = s.rows * s.cols, last = size <= 4096 ? 15 : size <= 65536 ? 11 : 10;
    const char *names[] = {"random", "all -128", "all 127", "ones", "zeros"};
    for (int fill_codes = -1; fill_codes <= 2; fill_codes++) { // 2: random
        Codes w(s.rows * s.cols);
        for (int8_t &c : w)
            c = int8_t(fill_codes == 2 ? int(random_below(3)) - 1 : fill_codes);
        const Tensor tensor(s, pack(s, w), 1 + 2 * random_below(3));
        for (size_t n_max : {size_t(1), size_t(3), counts[last - 1]}) {
            std::unique_ptr<bnb::Product> product;
            check(make(tensor.weights, n_max, product) == BNB_OK, s, "prepare", n_max);
            if (!product)
                return;
            for (size_t c = 0; c < last && counts[c] <= n_max; c++) {
                const size_t n = counts[c];
                std::vector<int8_t> q(n * s.cols);
                for (int kind = 0; kind < 5; kind++) {
                    if (fill_codes != 2 && kind == 0)
                        continue;
                    if (n > 4 && kind > 1)
                        continue;
                    fill(q, kind);
                    check_run(s, *product, w, q, n, names[kind]);
                }
                // the extreme of every row at once: q as the sign of a row of codes, -128 or 127
                for (size_t k = 0; k < q.size(); k++)
                    q[k] = w[k % (s.rows * s.cols)] < 0 ? -128 : 127;
                check_run(s, *product, w, q, n, "signs of the codes");
            }
        }
    }
}

// A code no packer produces is refused wherever it stands; what means nothing is ignored.
void check_codes(const Shape &s) {
    Codes w(s.rows * s.cols);
    for (int8_t &c : w)
        c = int8_t(int(random_below(3)) - 1);
    const std::vector<uint8_t> good = pack(s, w);
    const size_t three_k = s.format == BNB_FORMAT_TL1 ? 0 : s.cols / s.bk * s.bk;
    const size_t signs = s.rows * three_k / 6, pairs = signs + s.rows * three_k / 24;
    for (int i = 0; i < 300; i++) {
        const size_t at = i == 0                          ? 0
                          : i == 1                        ? good.size() - 1
                          : i == 2 && signs               ? signs - 1
                          : i == 3 && pairs < good.size() ? pairs
                                                          : random_below(uint32_t(good.size()));
        if (at >= signs && at < pairs)
            continue;
        const uint8_t worst = at < signs ? 13 : 8;
        std::vector<uint8_t> bad = good;
        const uint8_t code = uint8_t(worst + 1 + random_below(15 - worst));
        const bool high = random_below(2);
        bad[at] = uint8_t(high ? (bad[at] & 15) | code << 4 : (bad[at] & 240) | code);
        std::unique_ptr<bnb::Product> product;
        check(make(Tensor(s, bad, 0).weights, 3, product) == BNB_INVALID_DATA, s, "an unused code", at);
        check(!product, s, "a product of unused codes", at);
        bad[at] = uint8_t(high ? (bad[at] & 15) | worst << 4 : (bad[at] & 240) | worst);
        check(make(Tensor(s, bad, 0).weights, 3, product) == BNB_OK, s, "the largest code", at);
    }
    if (s.format != BNB_FORMAT_TL2 || three_k == 0)
        return;
    // a sign on magnitude 0 means nothing
    for (size_t k = 0; k < s.rows * s.cols; k++)
        if (k % s.cols < three_k)
            w[k] = 0;
    std::vector<uint8_t> bytes = pack(s, w);
    std::memset(bytes.data() + signs, 0xFF, pairs - signs);
    const Tensor tensor(s, bytes, 0);
    std::unique_ptr<bnb::Product> product;
    check(make(tensor.weights, 7, product) == BNB_OK, s, "prepare");
    std::vector<int8_t> q(7 * s.cols);
    fill(q, 0);
    for (size_t n : {1, 7})
        if (product)
            check_run(s, *product, w, q, n, "a sign on magnitude 0");
}

void check_refusals() {
    const Shape bad[] = {{BNB_FORMAT_TL1, 48, 8, 8, 96, 16},  {BNB_FORMAT_TL1, 32, 12, 8, 64, 24},
                         {BNB_FORMAT_TL1, 64, 8, 2, 64, 16},  {BNB_FORMAT_TL1, 32, 8, 8, 64, 20},
                         {BNB_FORMAT_TL2, 48, 24, 8, 96, 48}, {BNB_FORMAT_TL2, 32, 32, 8, 32, 64},
                         {BNB_FORMAT_TL2, 64, 24, 8, 96, 48}, {BNB_FORMAT_TL2, 32, 24, 8, 32, 40}};
    for (const Shape &s : bad) {
        std::unique_ptr<bnb::Product> product;
        const Tensor tensor(s, std::vector<uint8_t>(s.rows * s.cols), 0);
        check(make(tensor.weights, 1, product) == BNB_UNSUPPORTED, s, "a shape that is not legal");
    }
    // fewer bytes than the codes of this shape need
    const Shape short_shape = {BNB_FORMAT_TL2, 32, 24, 8, 32, 48};
    const Tensor tensor(short_shape, std::vector<uint8_t>(32 * 48 * 5 / 24 - 33), 0);
    std::unique_ptr<bnb::Product> product;
    check(make(tensor.weights, 1, product) == BNB_UNSUPPORTED, short_shape, "too few bytes");
}

int pack_from_stdin(char **argv) {
    const Shape s = {argv[0][2] == '1' ? BNB_FORMAT_TL1 : BNB_FORMAT_TL2,
                     uint32_t(std::atoi(argv[3])),
                     uint32_t(std::atoi(argv[4])),
                     uint32_t(std::atoi(argv[5])),
                     size_t(std::atoi(argv[1])),
                     size_t(std::atoi(argv[2]))};
    Codes w(s.rows * s.cols);
    if (std::fread(w.data(), 1, w.size(), stdin) != w.size())
        return 2;
    const std::vector<uint8_t> bytes = pack(s, w);
    return std::fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size() ? 0 : 2;
}

void test_isa() {
    for (uint32_t by : {4u, 8u}) {
        const uint32_t row_block = 256 / by;
        // BK at one inner block, around runs of 4, the int16 flush (224) and the longest stretch (128)
        for (uint32_t bk :
             {by, 2 * by, 3 * by, 4 * by, 5 * by, 64u, 120u, 128u, 128 + by, 224u, 224 + by, 264u})
            for (uint32_t tiles : {1u, 3u})
                check_shape({BNB_FORMAT_TL1, row_block * tiles, bk, by, row_block * tiles * (4 - tiles),
                             size_t(bk) * (bk < 64 ? 3 : 2)});
        check_shape({BNB_FORMAT_TL1, row_block, 4096, by, row_block, 8192});
        check_shape({BNB_FORMAT_TL1, 2 * row_block, 120, by, 2 * row_block, 960}); // strips end inside blocks
        check_shape({BNB_FORMAT_TL1, 128, 64, by, 256, 2560});
        for (uint32_t bk : {by, 64u})
            check_codes({BNB_FORMAT_TL1, 64, bk, by, 128, 4 * bk});
    }
    // units of 24 columns around one, the stretch (4) and the int16 flush (10); rests of 0 to 3 blocks of
    // pairs
    for (uint32_t units : {1u, 2u, 3u, 4u, 5u, 8u, 9u, 10u, 11u, 20u, 21u})
        for (uint32_t rest : {0u, 32u, 64u, 96u, 480u})
            for (uint32_t tiles : {1u, 3u})
                for (size_t blocks : {0, 1, 3})
                    if (rest < 24 * units && 24 * units * blocks + rest > 0 && (blocks < 3 || units < 9))
                        check_shape({BNB_FORMAT_TL2, 32 * tiles, 24 * units, 8, 32 * tiles * (4 - tiles),
                                     24 * units * blocks + rest});
    check_shape({BNB_FORMAT_TL2, 32, 6144, 8, 32, 12288});
    check_shape({BNB_FORMAT_TL2, 64, 120, 8, 64, 960 + 32}); // strips end inside blocks
    check_shape({BNB_FORMAT_TL2, 128, 96, 8, 256, 2560});
    for (size_t cols : {64, 96, 256})
        check_codes({BNB_FORMAT_TL2, 64, 96, 8, 128, cols});
    check_refusals();
}

// Names as in the list of backends, for those that have kernels of their own.
const std::vector<Isa> isas = {
#if defined(__x86_64__)
    {"cpp-avx2", bnb::make_tl1_avx2, bnb::make_tl2_avx2},
    {"cpp-avxvnni", bnb::make_tl1_avxvnni, bnb::make_tl2_avxvnni},
    {"cpp-avx512vnni", bnb::make_tl1_avx512vnni, bnb::make_tl2_avx512vnni},
#elif defined(__aarch64__)
    {"cpp-neon", bnb::make_tl1_neon, bnb::make_tl2_neon},
#endif
};

} // namespace

int main(int argc, char **argv) {
    if (argc == 8 && std::string(argv[1]) == "pack")
        return pack_from_stdin(argv + 2);
    // Every expected backend but the portable one, and that of SDOT, which has the look-ups of plain NEON.
    size_t tested = 0, wanted = 0;
    for (const std::string &name : expected_backends()) {
        wanted += name != "cpp-portable" && name != "cpp-neondotprod";
        for (const Isa &each : isas) {
            if (each.name != name) {
                continue;
            }
            isa = &each;
            const int before = passed;
            test_isa();
            tested++;
            std::printf("%s: %d passed\n", each.name, passed - before);
        }
    }
    std::printf("%zu of %zu kernels tested; %d passed, %d failed\n", tested, wanted, passed, failed);
    return failed == 0 && tested == wanted ? 0 : 1;
}
