/* SPDX-License-Identifier: Apache-2.0 */
/* scratch.h: sizes of attention's working memory, the same for every instruction set.
 * Owner: device/cpu/kernels; not for others. */
#ifndef MR_DEVICE_CPU_KERNELS_SCRATCH_H
#define MR_DEVICE_CPU_KERNELS_SCRATCH_H

enum {
    ATTENTION_QUERIES = 64, /* queries of a block */
    ATTENTION_PAD = 32,     /* rows of scores are whole panels of every instruction set */
    ATTENTION_SKEW = 16,    /* and end off a power of two, to spread over the cache's sets */
};

#endif
