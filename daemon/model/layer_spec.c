/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/layer_spec.h"

#include "daemon/base/status.h"

static const char *const layer_type_names[MR_LAYER_TYPE_COUNT] = {
#define MR_LAYER_TYPE_TEXT(name, text) [MR_LAYER_TYPE_##name] = text,
    MR_LAYER_TYPES(MR_LAYER_TYPE_TEXT)
#undef MR_LAYER_TYPE_TEXT
};

const char *mr_layer_type_name(mr_layer_type type) {
    MR_ASSERT((unsigned)type < MR_LAYER_TYPE_COUNT);
    return layer_type_names[type];
}

bool mr_layer_spec_is_shard(const mr_layer_spec *spec) {
    return spec->model_width > 1;
}

mr_dtype mr_layer_spec_activation(const mr_layer_spec *spec) {
    return spec->precision == MR_DTYPE_NONE ? MR_DTYPE_F32 : spec->precision;
}
