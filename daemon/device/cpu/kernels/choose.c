/* SPDX-License-Identifier: Apache-2.0 */
/* choose.c: which table of kernels this processor runs. The vector builds exist on x86-64 only. */
#include "daemon/device/cpu/kernels/kernels.h"

extern const mr_cpu_kernels cpu_plain_table;
#if defined(__x86_64__)
extern const mr_cpu_kernels cpu_avx2_table;
extern const mr_cpu_kernels cpu_avx512_table;
#endif

size_t mr_cpu_kernels_all(const mr_cpu_kernels *out_tables[3]) {
    size_t count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        out_tables[count++] = &cpu_avx512_table;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        out_tables[count++] = &cpu_avx2_table;
#endif
    out_tables[count++] = &cpu_plain_table;
    return count;
}

const mr_cpu_kernels *mr_cpu_kernels_choose(void) {
    const mr_cpu_kernels *tables[3];
    (void)mr_cpu_kernels_all(tables); /* there is always one */
    return tables[0];
}
