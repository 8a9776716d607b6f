// Intermediates that a caller wants to see, by the names of docs/NUMERICS.md.
#pragma once

#include <cstddef>
#include <vector>

#include "bitnet_backend.h"

namespace bnb {

enum class Node {
    kEmbedding,
    kAttentionRms,
    kAttentionNorm,
    kQuery,
    kKey,
    kValue,
    kQueryRope,
    kKeyRope,
    kMixed,
    kAttentionSubRms,
    kAttentionSubNorm,
    kAttentionOutput,
    kFeedForwardInput,
    kFeedForwardRms,
    kFeedForwardNorm,
    kGate,
    kActivated,
    kUp,
    kProduct,
    kFeedForwardSubRms,
    kFeedForwardSubNorm,
    kDown,
    kLayerOutput,
    kResultNorm,
    kLogits,
};

class Taps {
  public:
    // BNB_UNSUPPORTED for a name that this model does not have. dst = nullptr ends a tap, name = nullptr all.
    bnb_status set(const bnb_model &model, const char *name, float *dst, size_t n_dst);

    // Calls write(dst, n_dst) for the tap of that node, if there is one.
    template <class Write> void each(Node node, size_t layer, const Write &write) const {
        for (const Tap &tap : taps_) {
            if (tap.node == node && tap.layer == layer) {
                write(tap.dst, tap.n_dst);
            }
        }
    }
    // Copies `n` values there.
    void copy(Node node, size_t layer, const float *values, size_t n) const;

  private:
    struct Tap {
        Node node;
        size_t layer;
        float *dst;
        size_t n_dst;
    };
    std::vector<Tap> taps_;
};

} // namespace bnb
