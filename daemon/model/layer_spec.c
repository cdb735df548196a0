/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/layer_spec.h"

mr_dtype mr_layer_spec_activation(const mr_layer_spec *spec) {
    return spec->precision == MR_DTYPE_BF16 ? MR_DTYPE_BF16 : MR_DTYPE_F32;
}

const void *mr_layer_spec_own(const mr_layer_spec *spec) {
    return spec->own.bytes;
}
