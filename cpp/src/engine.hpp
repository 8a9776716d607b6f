// A whole model over any table of kernels (docs/NUMERICS.md, whole models).
//
//     embed
//     for each layer:  [per token]  norm, quantise            [by rows]   q, k, v
//                      [per token]  rotate, into the cache     [by heads]  attention
//                      [per token]  norm, quantise            [by rows]   attn_output
//                      [per token]  add, norm, quantise       [by rows]   gate, up
//                      [per token]  activate, norm, quantise  [by rows]   down
//                      [per token]  add
//     norm and head for the tokens whose logits are wanted
//
// Each bracket is one round of the team; the steps per token of a single token are done by the caller alone,
// without waking anybody. Who does what never changes a bit: tokens, rows and heads do not meet.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include "bitnet_backend.h"
#include "engine_linear.hpp"
#include "engine_taps.hpp"
#include "floats.hpp"
#include "kernels.hpp"
#include "quantize.hpp"
#include "team.hpp"

namespace bnb {

struct Layer {
    std::vector<float> attention_norm, attention_sub_norm, feed_forward_norm, feed_forward_sub_norm;
    Linear query, key, value, output, gate, up, down;
};

// Everything that was read from the tensors.
struct Parameters {
    FloatRows embedding = {};
    FloatRows head = {};
    std::vector<float> result_norm;
    std::vector<Layer> layers;
};

// Checks the sides of a model against each other and against memory.
bnb_status check_model(const bnb_model *model);

// Finds, checks and prepares every tensor of a checked model.
bnb_status read_tensors(const Kernels &kernels, const bnb_model &model, const bnb_tensor *tensors,
                        size_t n_tensors, Parameters *parameters);

class Engine {
  public:
    // std::bad_alloc and std::system_error may leave it.
    Engine(const Kernels &kernels, const FloatKernels &floats, const bnb_model &model, Parameters parameters);

    bnb_status prefill(const uint32_t *tokens, size_t n, size_t n_outputs);
    bnb_status logits(float *logits, uint64_t n_logits) const;
    bnb_status tap(const char *name, float *dst, size_t n_dst) { return taps_.set(model_, name, dst, n_dst); }
    void reset();

  private:
    struct Job {
        const Linear *linear;
        float *y;
    };
    // What one thread needs for attention.
    struct Scratch {
        std::unique_ptr<float[]> query;   // [columns, head_dim]
        std::unique_ptr<float[]> scores;  // [columns, context]
        std::unique_ptr<float[]> mixed;   // [columns, head_dim]
        std::unique_ptr<float[]> decoded; // for FloatKernels::dots
        std::unique_ptr<int32_t[]> dots;  // for Linear::run
    };

    bool ggml() const { return model_.numerics == BNB_NUMERICS_GGML; }
    bool half_cache() const { return model_.kv_type == BNB_TYPE_F16; }
    size_t value_bytes() const { return half_cache() ? 2 : 4; }
    size_t query_width() const { return model_.heads * model_.head_dim; }
    size_t key_width() const { return model_.kv_heads * model_.head_dim; }
    uint8_t *cached(std::vector<uint8_t> &cache, size_t layer, size_t kv_head, size_t position);

    template <class Work> void for_tokens(size_t n, const Work &work);
    void embed(const uint32_t *tokens, size_t n);
    void norm(const float *x, size_t width, const float *weight, size_t first, size_t count, float *y) const;
    void quantize(const float *x, size_t cols, bool table_rule, size_t first, size_t count);
    void products(std::initializer_list<Job> jobs, size_t n);
    void add_residual(size_t first, size_t count);
    void rotate_and_store(size_t layer, size_t first, size_t count);
    void attention(size_t layer, size_t n);
    void attend(size_t layer, size_t kv_head, size_t n, size_t first, size_t count, Scratch &scratch);
    void soften(float *scores, size_t columns, size_t first, bool round);
    bool run_layer(size_t layer, size_t n);
    bool attention_block(size_t layer, size_t n);
    bool feed_forward_block(size_t layer, size_t n);
    bnb_status head(size_t n, size_t n_outputs);
    void tap_rms(Node node, size_t layer, const float *x, size_t width, size_t n) const;
    void tap_activated(size_t layer, size_t n) const;
    bool finite() const { return !non_finite_.load(std::memory_order_relaxed); }

    const Kernels &kernels_;
    const FloatKernels &floats_;
    bnb_model model_;
    Parameters parameters_;
    std::shared_ptr<Team> team_;
    FloatProduct head_;
    Taps taps_;

    size_t position_ = 0;  // tokens in the cache
    size_t n_outputs_ = 0; // rows of logits_ that the last call left
    bool broken_ = false;  // until reset
    std::atomic<bool> non_finite_{false};
    std::atomic<size_t> next_item_{0}; // of attention

    float score_scale_ = 0.0f;
    float angle_ratio_ = 0.0f;
    size_t group_ = 0;                   // query heads of a key head
    size_t block_tokens_ = 0;            // tokens of one item of attention
    std::vector<uint8_t> keys_, values_; // [layers, kv_heads, context, head_dim]

    // [batch, ...] of one call
    std::unique_ptr<float[]> x_;      // hidden: the residual stream
    std::unique_ptr<float[]> delta_;  // hidden: what is added to it next
    std::unique_ptr<float[]> normed_; // the widest input: what the next products read, before quantising
    std::unique_ptr<float[]> query_, key_, value_;
    std::unique_ptr<float[]> query_rope_, key_rope_;
    std::unique_ptr<float[]> mixed_;               // query width
    std::unique_ptr<float[]> gate_, up_, product_; // ffn
    std::unique_ptr<float[]> cosine_, sine_;       // head_dim / 2
    std::unique_ptr<int8_t[]> codes_;              // the widest input
    std::unique_ptr<float[]> scales_;              // 1
    std::unique_ptr<float[]> result_;              // [outputs, hidden]
    std::unique_ptr<float[]> logits_;              // [outputs, vocab]
    std::vector<Scratch> scratch_;                 // by thread
};

} // namespace bnb
