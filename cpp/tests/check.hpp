// What the tests of floats and engines share: counting checks, the random numbers of a fixed seed.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

inline size_t passed = 0;
inline size_t failed = 0;
inline std::string context; // which backend, which case

inline void check(bool holds, const char *expression, int line) {
    if (holds) {
        ++passed;
        return;
    }
    if (++failed <= 20) {
        std::printf("FAILED line %d: %s (%s)\n", line, expression, context.c_str());
    }
}

#define CHECK(expression) check((expression), #expression, __LINE__)

inline uint64_t random_state = 42;

// splitmix64
inline uint64_t random_bits() {
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

inline float random_float(float largest) {
    return (static_cast<float>(random_bits() >> 40) / 8388608.0f - 1.0f) * largest;
}

template <class T> bool same_bits(const std::vector<T> &a, const std::vector<T> &b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
