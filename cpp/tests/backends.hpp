// The backends that the tests of this machine must run over, and a count of those that they did: one that is
// missing where its instruction set is there fails, as does one that was left out.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "bitnet_backend.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

// What this CPU can do, asked here a second time.
inline std::vector<std::string> expected_backends() {
    std::vector<std::string> names = {"cpp-portable"};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
        names.push_back("cpp-avx2");
        if (__builtin_cpu_supports("avxvnni")) {
            names.push_back("cpp-avxvnni");
        }
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vnni")) {
            names.push_back("cpp-avx512vnni");
        }
    }
#elif defined(__aarch64__)
    names.push_back("cpp-neon"); // part of every AArch64
#ifdef __linux__
    if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) {
        names.push_back("cpp-neondotprod");
    }
#endif
#endif
    return names;
}

// Those of the reference that are available; says why the others are not.
inline std::vector<const bnb_api *> available_backends() {
    std::vector<const bnb_api *> found;
    for (uint32_t index = 0; const bnb_api *api = bitnet_cpp_reference(index); ++index) {
        const char *why = nullptr;
        if (api->available(&why) == BNB_OK) {
            found.push_back(api);
        } else {
            std::printf("skipped %s: %s\n", api->name, why);
        }
    }
    return found;
}

// Whether `tested`, in order, are the expected ones; prints their number.
inline bool all_backends_tested(const std::vector<std::string> &tested) {
    const std::vector<std::string> expected = expected_backends();
    std::printf("%zu of %zu backends tested:", tested.size(), expected.size());
    for (const std::string &name : tested) {
        std::printf(" %s", name.c_str());
    }
    std::printf("\n");
    return tested == expected;
}
