/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/group/combine.h"

#include <string.h>

void mr_group_combine_part(mr_group_combine *combine, const float *part, size_t first,
                           size_t count) {
    float *out = combine->out + first;
    if (!combine->begun && part != out)
        memmove(out, part, count * sizeof(*out));
    for (size_t i = 0; combine->begun && i < count; i++)
        out[i] += part[i];
    if (first + count == combine->n)
        combine->begun = true;
}

void mr_group_combine_end(mr_group_combine *combine) {
    if (!combine->begun)
        memset(combine->out, 0, combine->n * sizeof(*combine->out));
}
