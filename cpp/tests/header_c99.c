/* The contract is C99: this file is compiled as such with every warning on, and pins what a foreign language
 * relies on: the order and the places of the fields on a 64-bit machine. */
#include "bitnet_backend.h"

#include <stddef.h>

#define PIN(name, holds) typedef char name[(holds) ? 1 : -1]

PIN(pin_layout_size, sizeof(bnb_layout) == 32);
PIN(pin_layout_rows, offsetof(bnb_layout, rows) == 16);
PIN(pin_weights_bytes, offsetof(bnb_weights, bytes) == 32);
PIN(pin_weights_scale, offsetof(bnb_weights, scale) == 48);
PIN(pin_weights_size, sizeof(bnb_weights) == 56);
PIN(pin_build_info_size, sizeof(bnb_build_info) == 48);
PIN(pin_struct_size, offsetof(bnb_api, struct_size) == 8);
PIN(pin_name, offsetof(bnb_api, name) == 16);
PIN(pin_capabilities, offsetof(bnb_api, capabilities) == 40);
PIN(pin_available, offsetof(bnb_api, available) == 48);
PIN(pin_quiesce, offsetof(bnb_api, quiesce) == 112);
PIN(pin_matmul_bytes, offsetof(bnb_api, matmul_bytes) == 120);
PIN(pin_engine_free, offsetof(bnb_api, engine_free) == 200);
PIN(pin_api_size, sizeof(bnb_api) == 208);
PIN(pin_float_matrix_size, sizeof(bnb_float_matrix) == 40);
PIN(pin_model_hidden, offsetof(bnb_model, hidden) == 32);
PIN(pin_model_size, sizeof(bnb_model) == 112);
PIN(pin_tensor_size, sizeof(bnb_tensor) == 56);

int main(void) {
    const bitnet_backend_v1_fn entry = bitnet_cpp_reference;
    return entry(0) != 0 && entry(0)->struct_size == sizeof(bnb_api) ? 0 : 1;
}
