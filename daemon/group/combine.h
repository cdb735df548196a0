/* SPDX-License-Identifier: Apache-2.0 */
/* combine.h: a sum of parts, one after the other: out = ((p0 + p1) + p2) + ... elementwise in f32.
 * The first part is copied, not added to zero, so that a single part keeps its bits (also -0).
 * Owner: group. Thread: any, one at a time. */
#ifndef MR_GROUP_COMBINE_H
#define MR_GROUP_COMBINE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct mr_group_combine {
    float *out; /* [n] */
    size_t n;
    bool begun; /* a whole part is in out */
} mr_group_combine;

/* Elements [first, first + count) of the next part. The piece that ends the part (first + count ==
 * n) completes it. part may be out for the first part. */
void mr_group_combine_part(mr_group_combine *combine, const float *part, size_t first,
                           size_t count);
/* Without any part the sum is zero. */
void mr_group_combine_end(mr_group_combine *combine);

#endif
