// The boundary of whole models: argument checks and exceptions around Engine.

#include "engine_abi.hpp"

#include "checks.hpp"
#include "engine.hpp"

struct bnb_engine {
    bnb::Engine engine;
};

namespace bnb {

bnb_status engine_create(const Kernels &kernels, const FloatKernels &floats, const bnb_model *model,
                         const bnb_tensor *tensors, uint64_t n_tensors, bnb_engine **engine) noexcept {
    return guarded([&]() -> bnb_status {
        if (engine == nullptr || tensors == nullptr) {
            return BNB_INVALID_ARGUMENT;
        }
        bnb_status status = check_model(model);
        if (status != BNB_OK) {
            return status;
        }
        Parameters parameters;
        status = read_tensors(kernels, *model, tensors, n_tensors, &parameters);
        if (status == BNB_OK) {
            *engine = new bnb_engine{{kernels, floats, *model, std::move(parameters)}};
        }
        return status;
    });
}

bnb_status engine_prefill(bnb_engine *engine, const uint32_t *tokens, uint64_t n,
                          uint64_t n_outputs) noexcept {
    return guarded([&]() -> bnb_status {
        return engine == nullptr ? BNB_INVALID_ARGUMENT : engine->engine.prefill(tokens, n, n_outputs);
    });
}

bnb_status engine_decode(bnb_engine *engine, uint32_t token) noexcept {
    return engine_prefill(engine, &token, 1, 1);
}

bnb_status engine_logits(bnb_engine *engine, float *logits, uint64_t n_logits) noexcept {
    return guarded([&]() -> bnb_status {
        return engine == nullptr ? BNB_INVALID_ARGUMENT : engine->engine.logits(logits, n_logits);
    });
}

bnb_status engine_tap(bnb_engine *engine, const char *name, float *dst, uint64_t n_dst) noexcept {
    return guarded([&]() -> bnb_status {
        return engine == nullptr ? BNB_INVALID_ARGUMENT : engine->engine.tap(name, dst, n_dst);
    });
}

bnb_status engine_reset(bnb_engine *engine) noexcept {
    if (engine == nullptr) {
        return BNB_INVALID_ARGUMENT;
    }
    engine->engine.reset();
    return BNB_OK;
}

void engine_free(bnb_engine *engine) noexcept {
    delete engine;
}

} // namespace bnb
