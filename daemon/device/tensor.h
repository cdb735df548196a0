/* SPDX-License-Identifier: Apache-2.0 */
/* tensor.h: memory of a device with a shape: row-major, packed. A view; it owns nothing.
 * Owner: device. Plain data. */
#ifndef MR_DEVICE_TENSOR_H
#define MR_DEVICE_TENSOR_H

#include "daemon/model/shape.h"

typedef struct mr_tensor {
    void *data;
    mr_shape shape;
} mr_tensor;

#endif
