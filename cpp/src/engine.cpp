// The forward pass; engine.hpp says who does what.

#include "engine.hpp"

#include <algorithm>
#include <cmath>

namespace bnb {
namespace {

constexpr size_t kTokenBlock = 4;        // tokens whose norms are computed together
constexpr size_t kAttentionColumns = 12; // query heads times tokens of one item of attention

template <class T> std::unique_ptr<T[]> room(size_t rows, size_t cols) {
    return std::unique_ptr<T[]>(new T[rows * cols]);
}

// The sums of squares of up to four rows: squares in float32, sums in float64 and in index order. Each
// addition waits for the one before, so the rows go together; the last one is repeated.
void sums_of_squares(const float *x, size_t stride, size_t count, size_t n, double (&sums)[kTokenBlock]) {
    if (count == 1) {
        double sum = 0.0;
        for (size_t i = 0; i < n; ++i) {
            sum += static_cast<double>(x[i] * x[i]);
        }
        sums[0] = sum;
        return;
    }
    const float *rows[kTokenBlock];
    for (size_t row = 0; row < kTokenBlock; ++row) {
        rows[row] = x + std::min(row, count - 1) * stride;
        sums[row] = 0.0;
    }
    for (size_t i = 0; i < n; ++i) {
        for (size_t row = 0; row < kTokenBlock; ++row) {
            sums[row] += static_cast<double>(rows[row][i] * rows[row][i]);
        }
    }
}

float rms_factor(double sum, size_t n, float eps) {
    const float mean = static_cast<float>(sum / static_cast<double>(n));
    return 1.0f / std::sqrt(mean + eps);
}

} // namespace

Engine::Engine(const Kernels &kernels, const FloatKernels &floats, const bnb_model &model,
               Parameters parameters)
    : kernels_(kernels), floats_(floats), model_(model), parameters_(std::move(parameters)),
      team_(Team::shared(model.threads)),
      head_(floats, parameters_.head, model.vocab, std::max<size_t>(model.outputs, 1), team_) {
    const size_t batch = model.batch, hidden = model.hidden, ffn = model.ffn, d = model.head_dim;
    const size_t widest = std::max({hidden, ffn, query_width()});
    group_ = model.heads / model.kv_heads;
    block_tokens_ = std::min(batch, std::max<size_t>(1, kAttentionColumns / group_));
    score_scale_ = 1.0f / std::sqrt(static_cast<float>(d));
    angle_ratio_ =
        static_cast<float>(std::pow(static_cast<double>(model.rope_base), -2.0 / static_cast<double>(d)));
    const size_t cache = model.layers * model.kv_heads * model.context * d * value_bytes();
    keys_.resize(cache);
    values_.resize(cache);
    x_ = room<float>(batch, hidden);
    delta_ = room<float>(batch, hidden);
    normed_ = room<float>(batch, widest);
    query_ = room<float>(batch, query_width());
    query_rope_ = room<float>(batch, query_width());
    mixed_ = room<float>(batch, query_width());
    key_ = room<float>(batch, key_width());
    key_rope_ = room<float>(batch, key_width());
    value_ = room<float>(batch, key_width());
    gate_ = room<float>(batch, ffn);
    up_ = room<float>(batch, ffn);
    product_ = room<float>(batch, ffn);
    cosine_ = room<float>(batch, d / 2);
    sine_ = room<float>(batch, d / 2);
    codes_ = room<int8_t>(batch, widest);
    scales_ = room<float>(batch, 1);
    result_ = room<float>(std::max<size_t>(model.outputs, 1), hidden);
    logits_ = room<float>(std::max<size_t>(model.outputs, 1), model.vocab);
    size_t dots = 0;
    for (const Layer &layer : parameters_.layers) {
        for (const Linear *linear :
             {&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.up, &layer.down}) {
            dots = std::max(dots, linear->dots_per_row());
        }
    }
    scratch_.resize(team_->threads());
    for (Scratch &scratch : scratch_) {
        const size_t columns = block_tokens_ * group_;
        scratch.query = room<float>(columns, d);
        scratch.mixed = room<float>(columns, d);
        scratch.scores = room<float>(columns, model.context);
        scratch.decoded = room<float>(1, dots_scratch(d, columns));
        scratch.dots = room<int32_t>(batch, dots);
    }
}

void Engine::reset() {
    position_ = 0;
    n_outputs_ = 0;
    broken_ = false;
}

bnb_status Engine::logits(float *logits, uint64_t n_logits) const {
    if (n_logits != n_outputs_ * model_.vocab) {
        return BNB_INVALID_ARGUMENT;
    }
    if (n_logits == 0) {
        return BNB_OK;
    }
    if (logits == nullptr) {
        return BNB_INVALID_ARGUMENT;
    }
    std::copy_n(logits_.get(), n_logits, logits);
    return BNB_OK;
}

uint8_t *Engine::cached(std::vector<uint8_t> &cache, size_t layer, size_t kv_head, size_t position) {
    const size_t row = (layer * model_.kv_heads + kv_head) * model_.context + position;
    return cache.data() + row * model_.head_dim * value_bytes();
}

// work(first, count) for blocks of tokens, on all threads; a single token stays here.
template <class Work> void Engine::for_tokens(size_t n, const Work &work) {
    if (n == 1) {
        work(size_t{0}, size_t{1});
        return;
    }
    team_->run([&](size_t part) {
        const Share share = share_of(n, part, team_->threads());
        for (size_t first = share.begin; first < share.end; first += kTokenBlock) {
            work(first, std::min(kTokenBlock, share.end - first));
        }
    });
}

bnb_status Engine::prefill(const uint32_t *tokens, size_t n, size_t n_outputs) {
    if (n == 0 || n > model_.batch || n > model_.context - position_ || tokens == nullptr ||
        n_outputs > std::min<size_t>(n, model_.outputs)) {
        return BNB_INVALID_ARGUMENT;
    }
    if (std::any_of(tokens, tokens + n, [&](uint32_t token) { return token >= model_.vocab; })) {
        return BNB_INVALID_ARGUMENT;
    }
    if (broken_) {
        return BNB_NON_FINITE;
    }
    n_outputs_ = 0;
    non_finite_.store(false, std::memory_order_relaxed);
    embed(tokens, n);
    bool sound = true;
    for (size_t layer = 0; sound && layer < model_.layers; ++layer) {
        sound = run_layer(layer, n);
    }
    const bnb_status status = sound ? head(n, n_outputs) : BNB_NON_FINITE;
    broken_ = status != BNB_OK;
    if (status == BNB_OK) {
        position_ += n;
        n_outputs_ = n_outputs;
    }
    return status;
}

void Engine::embed(const uint32_t *tokens, size_t n) {
    const FloatRows &rows = parameters_.embedding;
    for_tokens(n, [&](size_t first, size_t count) {
        for (size_t i = first; i < first + count; ++i) {
            floats_.decode(rows.type, rows.bytes + tokens[i] * rows.row_bytes, rows.cols,
                           x_.get() + i * rows.cols);
        }
    });
    taps_.copy(Node::kEmbedding, 0, x_.get(), n * model_.hidden);
    const size_t pairs = model_.head_dim / 2;
    for (size_t i = 0; i < n; ++i) {
        float angle = static_cast<float>(position_ + i);
        for (size_t j = 0; j < pairs; ++j) {
            cosine_[i * pairs + j] = static_cast<float>(std::cos(static_cast<double>(angle)));
            sine_[i * pairs + j] = static_cast<float>(std::sin(static_cast<double>(angle)));
            angle *= angle_ratio_;
        }
    }
}

void Engine::norm(const float *x, size_t width, const float *weight, size_t first, size_t count,
                  float *y) const {
    double sums[kTokenBlock];
    sums_of_squares(x + first * width, width, count, width, sums);
    for (size_t row = 0; row < count; ++row) {
        const float factor = rms_factor(sums[row], width, model_.norm_eps);
        const float *values = x + (first + row) * width;
        float *out = y + (first + row) * width;
        for (size_t i = 0; i < width; ++i) {
            out[i] = values[i] * factor * weight[i];
        }
    }
}

void Engine::quantize(const float *x, size_t cols, bool table_rule, size_t first, size_t count) {
    for (size_t i = first; i < first + count; ++i) {
        const uint32_t peak = kernels_.max_abs_bits(x + i * cols, cols);
        if (peak > kLargestFinite) {
            non_finite_.store(true, std::memory_order_relaxed);
            return;
        }
        scales_[i] = table_rule ? activation_scale_tl(peak) : activation_scale_i2s(peak);
        kernels_.quantize_row(x + i * cols, cols, scales_[i], codes_.get() + i * cols);
    }
}

// Jobs that read the same columns, of which normed_ holds the floats and codes_ the codes by the first's
// rule.
void Engine::products(std::initializer_list<Job> jobs, size_t n) {
    bool rule = jobs.begin()->linear->table_rule();
    for (const Job *job = jobs.begin(); job != jobs.end();) {
        if (job->linear->table_rule() != rule) {
            rule = !rule;
            const size_t cols = job->linear->cols();
            for_tokens(
                n, [&](size_t first, size_t count) { quantize(normed_.get(), cols, rule, first, count); });
        }
        const Job *end = job;
        while (end != jobs.end() && end->linear->table_rule() == rule) {
            ++end;
        }
        team_->run([&](size_t part) {
            for (const Job *own = job; own != end; ++own) {
                own->linear->run(part, codes_.get(), scales_.get(), n, scratch_[part].dots.get(), own->y);
            }
        });
        job = end;
    }
}

void Engine::add_residual(size_t first, size_t count) {
    const size_t hidden = model_.hidden;
    for (size_t i = first * hidden; i < (first + count) * hidden; ++i) {
        x_[i] += delta_[i];
    }
}

void Engine::rotate_and_store(size_t layer, size_t first, size_t count) {
    const size_t d = model_.head_dim;
    for (size_t i = first; i < first + count; ++i) {
        const float *cosine = cosine_.get() + i * (d / 2), *sine = sine_.get() + i * (d / 2);
        for (size_t head = 0; head < model_.heads; ++head) {
            const size_t at = i * query_width() + head * d;
            floats_.rope(model_.rope, query_.get() + at, cosine, sine, d, query_rope_.get() + at);
        }
        for (size_t head = 0; head < model_.kv_heads; ++head) {
            const size_t at = i * key_width() + head * d;
            floats_.rope(model_.rope, key_.get() + at, cosine, sine, d, key_rope_.get() + at);
            uint8_t *key = cached(keys_, layer, head, position_ + i);
            uint8_t *value = cached(values_, layer, head, position_ + i);
            if (half_cache()) {
                floats_.to_half(key_rope_.get() + at, d, reinterpret_cast<uint16_t *>(key));
                floats_.to_half(value_.get() + at, d, reinterpret_cast<uint16_t *>(value));
            } else {
                std::copy_n(key_rope_.get() + at, d, reinterpret_cast<float *>(key));
                std::copy_n(value_.get() + at, d, reinterpret_cast<float *>(value));
            }
        }
    }
}

bool Engine::run_layer(size_t layer, size_t n) {
    return attention_block(layer, n) && feed_forward_block(layer, n);
}

bool Engine::attention_block(size_t index, size_t n) {
    const Layer &layer = parameters_.layers[index];
    const size_t hidden = model_.hidden, width = query_width();
    for_tokens(n, [&](size_t first, size_t count) {
        norm(x_.get(), hidden, layer.attention_norm.data(), first, count, normed_.get());
        quantize(normed_.get(), hidden, layer.query.table_rule(), first, count);
    });
    if (!finite()) {
        return false;
    }
    tap_rms(Node::kAttentionRms, index, x_.get(), hidden, n);
    taps_.copy(Node::kAttentionNorm, index, normed_.get(), n * hidden);
    products({{&layer.query, query_.get()}, {&layer.key, key_.get()}, {&layer.value, value_.get()}}, n);
    for_tokens(n, [&](size_t first, size_t count) { rotate_and_store(index, first, count); });
    taps_.copy(Node::kQuery, index, query_.get(), n * width);
    taps_.copy(Node::kKey, index, key_.get(), n * key_width());
    taps_.copy(Node::kValue, index, value_.get(), n * key_width());
    taps_.copy(Node::kQueryRope, index, query_rope_.get(), n * width);
    taps_.copy(Node::kKeyRope, index, key_rope_.get(), n * key_width());
    attention(index, n);
    taps_.copy(Node::kMixed, index, mixed_.get(), n * width);
    for_tokens(n, [&](size_t first, size_t count) {
        if (model_.sub_norms != 0) {
            norm(mixed_.get(), width, layer.attention_sub_norm.data(), first, count, normed_.get());
        } else {
            std::copy_n(mixed_.get() + first * width, count * width, normed_.get() + first * width);
        }
        quantize(normed_.get(), width, layer.output.table_rule(), first, count);
    });
    if (!finite()) {
        return false;
    }
    tap_rms(Node::kAttentionSubRms, index, mixed_.get(), width, n);
    taps_.copy(Node::kAttentionSubNorm, index, normed_.get(), n * width);
    products({{&layer.output, delta_.get()}}, n);
    taps_.copy(Node::kAttentionOutput, index, delta_.get(), n * hidden);
    return true;
}

bool Engine::feed_forward_block(size_t index, size_t n) {
    const Layer &layer = parameters_.layers[index];
    const size_t hidden = model_.hidden, ffn = model_.ffn;
    for_tokens(n, [&](size_t first, size_t count) {
        add_residual(first, count);
        norm(x_.get(), hidden, layer.feed_forward_norm.data(), first, count, normed_.get());
        quantize(normed_.get(), hidden, layer.gate.table_rule(), first, count);
    });
    if (!finite()) {
        return false;
    }
    taps_.copy(Node::kFeedForwardInput, index, x_.get(), n * hidden);
    tap_rms(Node::kFeedForwardRms, index, x_.get(), hidden, n);
    taps_.copy(Node::kFeedForwardNorm, index, normed_.get(), n * hidden);
    products({{&layer.gate, gate_.get()}, {&layer.up, up_.get()}}, n);
    for_tokens(n, [&](size_t first, size_t count) {
        const size_t from = first * ffn, values = count * ffn;
        float *product = product_.get() + from;
        floats_.activate(model_.activation, gate_.get() + from, values, product);
        for (size_t i = 0; i < values; ++i) {
            product[i] *= up_[from + i];
        }
        if (model_.sub_norms != 0) {
            norm(product_.get(), ffn, layer.feed_forward_sub_norm.data(), first, count, normed_.get());
        } else {
            std::copy_n(product, values, normed_.get() + from);
        }
        quantize(normed_.get(), ffn, layer.down.table_rule(), first, count);
    });
    if (!finite()) {
        return false;
    }
    taps_.copy(Node::kGate, index, gate_.get(), n * ffn);
    taps_.copy(Node::kUp, index, up_.get(), n * ffn);
    tap_activated(index, n);
    taps_.copy(Node::kProduct, index, product_.get(), n * ffn);
    tap_rms(Node::kFeedForwardSubRms, index, product_.get(), ffn, n);
    taps_.copy(Node::kFeedForwardSubNorm, index, normed_.get(), n * ffn);
    products({{&layer.down, delta_.get()}}, n);
    taps_.copy(Node::kDown, index, delta_.get(), n * hidden);
    for_tokens(n, [&](size_t first, size_t count) { add_residual(first, count); });
    taps_.copy(Node::kLayerOutput, index, x_.get(), n * hidden);
    return true;
}

bnb_status Engine::head(size_t n, size_t n_outputs) {
    const size_t hidden = model_.hidden, vocab = model_.vocab;
    if (kernels_.max_abs_bits(x_.get(), n * hidden) > kLargestFinite) {
        return BNB_NON_FINITE;
    }
    if (n_outputs == 0) {
        return BNB_OK;
    }
    const float *last = x_.get() + (n - n_outputs) * hidden;
    for (size_t first = 0; first < n_outputs; first += kTokenBlock) {
        norm(last, hidden, parameters_.result_norm.data(), first, std::min(kTokenBlock, n_outputs - first),
             result_.get());
    }
    taps_.copy(Node::kResultNorm, 0, result_.get(), n_outputs * hidden);
    if (ggml() && head_.type() == BNB_TYPE_F16 && n_outputs == 1) {
        floats_.round_to_half(result_.get(), hidden, result_.get());
    }
    head_.run(result_.get(), n_outputs, logits_.get());
    taps_.copy(Node::kLogits, 0, logits_.get(), n_outputs * vocab);
    const bool sound = kernels_.max_abs_bits(logits_.get(), n_outputs * vocab) <= kLargestFinite;
    return sound ? BNB_OK : BNB_NON_FINITE;
}

void Engine::tap_rms(Node node, size_t layer, const float *x, size_t width, size_t n) const {
    taps_.each(node, layer, [&](float *dst, size_t n_dst) {
        for (size_t row = 0; row < n && row * width < n_dst; ++row) {
            double sums[kTokenBlock];
            sums_of_squares(x + row * width, width, 1, width, sums);
            const float factor = rms_factor(sums[0], width, model_.norm_eps);
            for (size_t i = row * width; i < (row + 1) * width && i < n_dst; ++i) {
                dst[i] = x[i] * factor;
            }
        }
    });
}

void Engine::tap_activated(size_t layer, size_t n) const {
    taps_.each(Node::kActivated, layer, [&](float *dst, size_t n_dst) {
        floats_.activate(model_.activation, gate_.get(), std::min<size_t>(n_dst, n * model_.ffn), dst);
    });
}

} // namespace bnb
