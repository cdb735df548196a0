/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/layer_spec.h"

bool mr_layer_spec_is_shard(const mr_layer_spec *spec) {
    return spec->model_width > 1;
}

mr_dtype mr_layer_spec_activation(const mr_layer_spec *spec) {
    return spec->precision == MR_DTYPE_NONE ? MR_DTYPE_F32 : spec->precision;
}

const void *mr_layer_spec_own(const mr_layer_spec *spec) {
    return spec->own.bytes;
}
