// Attention of one layer. An item is one key head and a few neighbouring tokens; the query heads that share
// the key head times those tokens are the columns that meet every cached key at once:
//
//     scores  = keys x columns          (float products of the cache's rows)
//     weights = exp(scores - max) / sum, each column up to its own position
//     mixed   = weights x values        (positions all columns see, then the few that only later tokens see)

#include <algorithm>
#include <cmath>

#include "engine.hpp"

namespace bnb {
namespace {

// The sum in float64 and in index order. Each addition waits for the one before, so four columns go together.
void sums_in_order(const float *const (&columns)[4], const size_t (&lengths)[4], double (&sums)[4]) {
    const size_t common = std::min(std::min(lengths[0], lengths[1]), std::min(lengths[2], lengths[3]));
    double a = 0.0, b = 0.0, c = 0.0, d = 0.0;
    for (size_t t = 0; t < common; ++t) {
        a += static_cast<double>(columns[0][t]);
        b += static_cast<double>(columns[1][t]);
        c += static_cast<double>(columns[2][t]);
        d += static_cast<double>(columns[3][t]);
    }
    sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
    for (size_t i = 0; i < 4; ++i) {
        for (size_t t = common; t < lengths[i]; ++t) {
            sums[i] += static_cast<double>(columns[i][t]);
        }
    }
}

} // namespace

// Scores -> weights. Column c belongs to token c / group_, which sees first + c / group_ + 1 positions.
void Engine::soften(float *scores, size_t columns, size_t first, bool round) {
    const size_t stride = model_.context;
    for (size_t from = 0; from < columns; from += 4) {
        float *column[4];
        size_t length[4];
        const size_t used = std::min<size_t>(4, columns - from);
        for (size_t i = 0; i < 4; ++i) {
            const size_t index = from + std::min(i, used - 1);
            column[i] = scores + index * stride;
            length[i] = first + index / group_ + 1;
        }
        for (size_t i = 0; i < used; ++i) {
            floats_.exp_scores(column[i], length[i], score_scale_);
        }
        double sums[4];
        sums_in_order({column[0], column[1], column[2], column[3]}, length, sums);
        for (size_t i = 0; i < used; ++i) {
            const float factor = static_cast<float>(1.0 / sums[i]);
            for (size_t t = 0; t < length[i]; ++t) {
                column[i][t] *= factor;
            }
            if (round) {
                floats_.round_to_half(column[i], length[i], column[i]);
            }
        }
    }
}

void Engine::attend(size_t layer, size_t kv_head, size_t n, size_t first, size_t count, Scratch &scratch) {
    const size_t d = model_.head_dim, columns = count * group_, width = query_width();
    const bool round = ggml() && half_cache();
    for (size_t c = 0; c < columns; ++c) {
        const float *query =
            query_rope_.get() + (first + c / group_) * width + (kv_head * group_ + c % group_) * d;
        if (round) {
            floats_.round_to_half(query, d, scratch.query.get() + c * d);
        } else {
            std::copy_n(query, d, scratch.query.get() + c * d);
        }
    }
    const size_t seen = position_ + first + 1; // positions that every column sees
    const size_t row_bytes = d * value_bytes();
    const FloatRows keys = {model_.kv_type, cached(keys_, layer, kv_head, 0), row_bytes, d};
    floats_.dots(keys, seen + count - 1, scratch.query.get(), d, columns, scratch.scores.get(),
                 model_.context, scratch.decoded.get());
    soften(scratch.scores.get(), columns, position_ + first, round && n == 1);

    FloatRows values = {model_.kv_type, cached(values_, layer, kv_head, 0), row_bytes, d};
    floats_.mix(values, seen, scratch.scores.get(), model_.context, columns, false, scratch.mixed.get(), d);
    values.bytes += seen * row_bytes;
    for (size_t token = 1; token < count; ++token) {
        const size_t column = token * group_;
        floats_.mix(values, token, scratch.scores.get() + column * model_.context + seen, model_.context,
                    group_, true, scratch.mixed.get() + column * d, d);
    }
    for (size_t c = 0; c < columns; ++c) {
        std::copy_n(scratch.mixed.get() + c * d, d,
                    mixed_.get() + (first + c / group_) * width + (kv_head * group_ + c % group_) * d);
    }
}

void Engine::attention(size_t layer, size_t n) {
    const size_t blocks = (n + block_tokens_ - 1) / block_tokens_;
    next_item_.store(0, std::memory_order_relaxed);
    team_->run([&](size_t part) {
        // Later tokens see more positions and so are more work: they go first.
        while (true) {
            const size_t item = next_item_.fetch_add(1, std::memory_order_relaxed);
            if (item >= blocks * model_.kv_heads) {
                return;
            }
            const size_t first = (blocks - 1 - item / model_.kv_heads) * block_tokens_;
            attend(layer, item % model_.kv_heads, n, first, std::min(block_tokens_, n - first),
                   scratch_[part]);
        }
    });
}

} // namespace bnb
