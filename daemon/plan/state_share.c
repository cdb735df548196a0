/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/plan/state_share.h"

#include "daemon/base/status.h"
#include "daemon/model/slices.h"
#include "daemon/plan/partition.h"

mr_state_share mr_state_share_of(size_t bytes, size_t width, size_t index) {
    MR_ASSERT(index < width);
    MR_ASSERT(bytes % MR_SLICE_ALIGN == 0);
    size_t units = bytes / MR_SLICE_ALIGN;
    return (mr_state_share){
        .first = mr_partition_start(units, width, index) * MR_SLICE_ALIGN,
        .end = mr_partition_start(units, width, index + 1) * MR_SLICE_ALIGN,
    };
}
