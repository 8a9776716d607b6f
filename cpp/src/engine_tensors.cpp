// From named tensors to the parameters of a model: each one present once, with the right type and sides.

#include <cmath>
#include <cstring>
#include <string>
#include <unordered_map>

#include "checks.hpp"
#include "engine.hpp"

namespace bnb {
namespace {

constexpr uint64_t kMaxLayers = 1u << 16;

bool positive_finite(float value) {
    return std::isfinite(value) && value > 0.0f;
}

// The tensors by name; those that were taken are gone.
class Shelf {
  public:
    bnb_status fill(const bnb_tensor *tensors, size_t n) {
        tensors_.reserve(n);
        for (size_t i = 0; i < n; ++i) {
            const bnb_tensor &tensor = tensors[i];
            if (tensor.name == nullptr || tensor.bytes == nullptr ||
                !tensors_.emplace(tensor.name, &tensor).second) {
                return BNB_INVALID_ARGUMENT;
            }
        }
        return BNB_OK;
    }

    // nullptr where there is none.
    const bnb_tensor *take(const std::string &name) {
        const auto found = tensors_.find(name);
        if (found == tensors_.end()) {
            return nullptr;
        }
        const bnb_tensor *tensor = found->second;
        tensors_.erase(found);
        return tensor;
    }

    bool empty() const { return tensors_.empty(); }

  private:
    std::unordered_map<std::string, const bnb_tensor *> tensors_;
};

bnb_status read_f32(const bnb_tensor *tensor, uint64_t cols, std::vector<float> *values) {
    if (tensor == nullptr || tensor->type != BNB_TYPE_F32 || tensor->rows != 1 || tensor->cols != cols ||
        tensor->n_bytes != 4 * cols || tensor->bm != 0 || tensor->bk != 0 || tensor->by != 0) {
        return BNB_INVALID_ARGUMENT;
    }
    values->resize(cols);
    std::memcpy(values->data(), tensor->bytes, 4 * cols);
    for (const float value : *values) {
        if (!std::isfinite(value)) {
            return BNB_NON_FINITE;
        }
    }
    return BNB_OK;
}

bnb_status read_float_matrix(const bnb_tensor *tensor, uint64_t rows, uint64_t cols, FloatRows *matrix) {
    if (tensor == nullptr || tensor->rows != rows || tensor->cols != cols || tensor->bm != 0 ||
        tensor->bk != 0 || tensor->by != 0) {
        return BNB_INVALID_ARGUMENT;
    }
    switch (tensor->type) {
    case BNB_TYPE_F32:
    case BNB_TYPE_F16:
    case BNB_TYPE_BF16:
    case BNB_TYPE_Q8_0:
    case BNB_TYPE_Q6_K:
        break;
    default:
        return BNB_INVALID_ARGUMENT;
    }
    const size_t row_bytes = float_row_bytes(tensor->type, cols);
    if (row_bytes == 0) {
        return BNB_UNSUPPORTED;
    }
    *matrix = {tensor->type, tensor->bytes, row_bytes, cols};
    return is_product(tensor->n_bytes, rows, row_bytes) ? BNB_OK : BNB_INVALID_ARGUMENT;
}

struct Reader {
    const Kernels &kernels;
    const bnb_model &model;
    Shelf shelf;

    bnb_status linear(const std::string &name, uint64_t rows, uint64_t cols, Linear *linear) {
        const bnb_tensor *tensor = shelf.take(name + ".weight");
        if (tensor == nullptr || tensor->rows != rows || tensor->cols != cols ||
            (tensor->type != BNB_TYPE_I2_S && tensor->type != BNB_TYPE_TL1 && tensor->type != BNB_TYPE_TL2)) {
            return BNB_INVALID_ARGUMENT;
        }
        const bnb_status status = linear->prepare(kernels, *tensor, model.batch, model.threads);
        const bnb_tensor *scale = shelf.take(name + ".scale");
        if (status != BNB_OK || scale == nullptr) {
            return status;
        }
        std::vector<float> value;
        const bnb_status scale_status = read_f32(scale, 1, &value);
        if (scale_status == BNB_OK) {
            linear->set_output_scale(value[0]);
        }
        return scale_status;
    }

    bnb_status norm(const std::string &name, uint64_t cols, std::vector<float> *values) {
        return read_f32(shelf.take(name + ".weight"), cols, values);
    }

    bnb_status layer(size_t index, Layer *layer) {
        const std::string prefix = "blk." + std::to_string(index) + ".";
        const uint64_t query = model.heads * model.head_dim, key = model.kv_heads * model.head_dim;
        const uint64_t hidden = model.hidden, ffn = model.ffn;
        bnb_status status = norm(prefix + "attn_norm", hidden, &layer->attention_norm);
        const auto then = [&](bnb_status next) { status = next; };
        const struct {
            const char *name;
            uint64_t rows, cols;
            Linear *linear;
        } linears[] = {
            {"attn_q", query, hidden, &layer->query}, {"attn_k", key, hidden, &layer->key},
            {"attn_v", key, hidden, &layer->value},   {"attn_output", hidden, query, &layer->output},
            {"ffn_gate", ffn, hidden, &layer->gate},  {"ffn_up", ffn, hidden, &layer->up},
            {"ffn_down", hidden, ffn, &layer->down},
        };
        for (const auto &entry : linears) {
            if (status == BNB_OK) {
                then(linear(prefix + entry.name, entry.rows, entry.cols, entry.linear));
            }
        }
        if (status == BNB_OK) {
            then(norm(prefix + "ffn_norm", hidden, &layer->feed_forward_norm));
        }
        if (status == BNB_OK && model.sub_norms != 0) {
            then(norm(prefix + "attn_sub_norm", query, &layer->attention_sub_norm));
        }
        if (status == BNB_OK && model.sub_norms != 0) {
            then(norm(prefix + "ffn_sub_norm", ffn, &layer->feed_forward_sub_norm));
        }
        return status;
    }
};

} // namespace

bnb_status check_model(const bnb_model *model) {
    if (model == nullptr) {
        return BNB_INVALID_ARGUMENT;
    }
    const bnb_model &m = *model;
    const bool known = (m.activation == BNB_ACTIVATION_SILU || m.activation == BNB_ACTIVATION_RELU_SQUARED) &&
                       (m.rope == BNB_ROPE_HALVES || m.rope == BNB_ROPE_NEIGHBOURS) && m.sub_norms <= 1 &&
                       (m.numerics == BNB_NUMERICS_GGML || m.numerics == BNB_NUMERICS_PURE_F32) &&
                       (m.kv_type == BNB_TYPE_F16 || m.kv_type == BNB_TYPE_F32);
    const bool floats = positive_finite(m.rope_base) && std::isfinite(m.norm_eps) && m.norm_eps >= 0.0f;
    const bool sides = m.hidden != 0 && m.ffn != 0 && m.layers != 0 && m.heads != 0 && m.kv_heads != 0 &&
                       m.head_dim != 0 && m.vocab != 0 && m.context != 0 && m.batch != 0;
    if (!known || !floats || !sides || m.heads % m.kv_heads != 0 || m.head_dim % 2 != 0) {
        return BNB_INVALID_ARGUMENT;
    }
    uint64_t query = 0, lines = 0;
    if (__builtin_mul_overflow(m.heads, m.head_dim, &query) || m.hidden > kMaxCols || m.ffn > kMaxCols ||
        query > kMaxCols || m.layers > kMaxLayers || m.vocab > UINT32_MAX || m.threads == 0 ||
        m.threads > kMaxThreads) {
        return BNB_UNSUPPORTED;
    }
    const uint64_t widest = m.hidden + m.ffn + query;
    const bool addressable =
        !__builtin_mul_overflow(m.layers * m.kv_heads, m.context, &lines) &&
        fits_memory(lines, m.head_dim, sizeof(float)) && fits_memory(m.batch, widest, 2 * sizeof(float)) &&
        fits_memory(m.outputs, m.vocab + m.hidden, sizeof(float)) &&
        fits_memory(m.context, m.heads + 16, sizeof(float)) && fits_memory(m.vocab, m.hidden, sizeof(float));
    return addressable ? BNB_OK : BNB_INVALID_ARGUMENT;
}

bnb_status read_tensors(const Kernels &kernels, const bnb_model &model, const bnb_tensor *tensors,
                        size_t n_tensors, Parameters *parameters) {
    Reader reader = {kernels, model, {}};
    bnb_status status = reader.shelf.fill(tensors, n_tensors);
    if (status == BNB_OK) {
        status = read_float_matrix(reader.shelf.take("token_embd.weight"), model.vocab, model.hidden,
                                   &parameters->embedding);
    }
    if (status == BNB_OK) {
        status = reader.norm("output_norm", model.hidden, &parameters->result_norm);
    }
    parameters->head = parameters->embedding;
    const bnb_tensor *head = reader.shelf.take("output.weight");
    if (status == BNB_OK && head != nullptr) {
        status = read_float_matrix(head, model.vocab, model.hidden, &parameters->head);
    }
    for (size_t layer = 0; status == BNB_OK && layer < model.layers; ++layer) {
        parameters->layers.emplace_back();
        status = reader.layer(layer, &parameters->layers.back());
    }
    if (status == BNB_OK && !reader.shelf.empty()) {
        status = BNB_INVALID_ARGUMENT;
    }
    return status;
}

} // namespace bnb
