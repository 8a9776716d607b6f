// Names of intermediates: "<before>-<layer><after>", or a plain name for those outside the layers.

#include "engine_taps.hpp"

#include <algorithm>
#include <cstring>

namespace bnb {
namespace {

struct Name {
    Node node;
    const char *before;
    const char *after; // nullptr: `before` is the whole name, of no layer
};

constexpr Name kNames[] = {
    {Node::kEmbedding, "inp_embd.GET_ROWS", nullptr},
    {Node::kAttentionRms, "norm", ".RMS_NORM"},
    {Node::kAttentionNorm, "attn_norm", ".MUL"},
    {Node::kQuery, "Qcur", ".MUL_MAT"},
    {Node::kKey, "Kcur", ".MUL_MAT"},
    {Node::kValue, "Vcur", ".MUL_MAT"},
    {Node::kQueryRope, "Qcur", ".ROPE"},
    {Node::kKeyRope, "Kcur", ".ROPE"},
    {Node::kMixed, "kqv_out", ".CONT"},
    {Node::kAttentionOutput, "attn_o_out", ".MUL_MAT"},
    {Node::kFeedForwardInput, "ffn_inp", ".ADD"},
    {Node::kFeedForwardNorm, "ffn_norm", ".MUL"},
    {Node::kGate, "ffn_gate", ".MUL_MAT"},
    {Node::kUp, "ffn_up", ".MUL_MAT"},
    {Node::kProduct, "ffn_sub_out", ".MUL"},
    {Node::kDown, "ffn_down", ".MUL_MAT"},
    {Node::kLayerOutput, "l_out", ".ADD"},
    {Node::kResultNorm, "result_norm.MUL", nullptr},
    {Node::kLogits, "result_output.MUL_MAT", nullptr},
};
constexpr Name kWithSubNorms[] = {
    {Node::kAttentionSubRms, "norm", ".RMS_NORM.2"},     {Node::kAttentionSubNorm, "attn_sub_norm", ".MUL"},
    {Node::kFeedForwardRms, "norm", ".RMS_NORM.3"},      {Node::kFeedForwardSubRms, "norm", ".RMS_NORM.4"},
    {Node::kFeedForwardSubNorm, "ffn_sub_norm", ".MUL"},
};
constexpr Name kWithoutSubNorms[] = {{Node::kFeedForwardRms, "norm", ".RMS_NORM.2"}};
constexpr Name kSilu[] = {{Node::kActivated, "ffn_silu", ".UNARY"}};
constexpr Name kReluSquared[] = {{Node::kActivated, "ffn_sqr(relu)", ".SQR"}};

// The layer that `text` spells, written as numbers are written, and where its digits end.
bool read_layer(const char *&text, size_t layers, size_t *layer) {
    const char *digit = text;
    *layer = 0;
    for (; *digit >= '0' && *digit <= '9' && *layer < layers; ++digit) {
        *layer = 10 * *layer + static_cast<size_t>(*digit - '0');
    }
    const bool plain = digit != text && (text[0] != '0' || digit == text + 1);
    text = digit;
    return plain && *layer < layers;
}

bool matches(const Name &name, const char *text, size_t layers, size_t *layer) {
    if (name.after == nullptr) {
        *layer = 0;
        return std::strcmp(text, name.before) == 0;
    }
    const size_t length = std::strlen(name.before);
    if (std::strncmp(text, name.before, length) != 0 || text[length] != '-') {
        return false;
    }
    text += length + 1;
    return read_layer(text, layers, layer) && std::strcmp(text, name.after) == 0;
}

template <size_t n> const Name *find(const Name (&names)[n], const char *text, size_t layers, size_t *layer) {
    const auto found = std::find_if(std::begin(names), std::end(names),
                                    [&](const Name &name) { return matches(name, text, layers, layer); });
    return found == std::end(names) ? nullptr : &*found;
}

const Name *find(const bnb_model &model, const char *text, size_t *layer) {
    const Name *found = find(kNames, text, model.layers, layer);
    if (found == nullptr) {
        found = model.sub_norms != 0 ? find(kWithSubNorms, text, model.layers, layer)
                                     : find(kWithoutSubNorms, text, model.layers, layer);
    }
    if (found == nullptr) {
        found = model.activation == BNB_ACTIVATION_SILU ? find(kSilu, text, model.layers, layer)
                                                        : find(kReluSquared, text, model.layers, layer);
    }
    return found;
}

} // namespace

bnb_status Taps::set(const bnb_model &model, const char *name, float *dst, size_t n_dst) {
    if (name == nullptr) {
        taps_.clear();
        return BNB_OK;
    }
    size_t layer = 0;
    const Name *found = find(model, name, &layer);
    if (found == nullptr) {
        return BNB_UNSUPPORTED;
    }
    const auto same = [&](const Tap &tap) { return tap.node == found->node && tap.layer == layer; };
    taps_.erase(std::remove_if(taps_.begin(), taps_.end(), same), taps_.end());
    if (dst != nullptr) {
        taps_.push_back({found->node, layer, dst, n_dst});
    }
    return BNB_OK;
}

void Taps::copy(Node node, size_t layer, const float *values, size_t n) const {
    each(node, layer, [&](float *dst, size_t n_dst) { std::copy_n(values, std::min(n, n_dst), dst); });
}

} // namespace bnb
