/* SPDX-License-Identifier: Apache-2.0 */
/* cast.c: whole tensors from one element type to another, in chunks of CPU_CHUNK elements. */
#include "daemon/device/cpu/device_cpu.h"

typedef struct cast_work {
    const mr_cpu_kernels *kernels;
    const uint16_t *narrow_from; /* NULL: narrows wide_from */
    float *wide_to;
    const float *wide_from;
    uint16_t *narrow_to;
    size_t n;
} cast_work;

static void cast_task(void *context, size_t task, int thread) {
    (void)thread;
    const cast_work *work = context;
    size_t at = task * CPU_CHUNK;
    size_t n = work->n - at < CPU_CHUNK ? work->n - at : CPU_CHUNK;
    if (work->narrow_from != NULL)
        work->kernels->widen(work->narrow_from + at, work->wide_to + at, n);
    else
        work->kernels->narrow(work->wide_from + at, work->narrow_to + at, n);
}

static void cast_run(mr_device_cpu *cpu, cast_work *work) {
    mr_pool_run(cpu->pool, mr_device_cpu_parts(work->n, CPU_CHUNK), cast_task, work);
}

void mr_device_cpu_widen(mr_device_cpu *cpu, const mr_cpu_kernels *kernels, const uint16_t *from,
                         float *to, size_t n) {
    cast_work work = {.kernels = kernels, .narrow_from = from, .wide_to = to, .n = n};
    cast_run(cpu, &work);
}

void mr_device_cpu_narrow(mr_device_cpu *cpu, const mr_cpu_kernels *kernels, const float *from,
                          uint16_t *to, size_t n) {
    cast_work work = {.kernels = kernels, .wide_from = from, .narrow_to = to, .n = n};
    cast_run(cpu, &work);
}

void mr_device_cpu_cast(mr_device *device, const mr_tensor *x, mr_tensor *y) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    size_t n = mr_device_cpu_count(x);
    bool from = mr_device_cpu_is_half(x);
    bool to = mr_device_cpu_is_half(y);
    MR_ASSERT(mr_device_cpu_count(y) == n);
    MR_ASSERT(!from || !to || x->shape.dtype == y->shape.dtype);
    if (from == to)
        mr_device_cpu_copy(device, y->data, x->data, n * mr_dtype_bytes(x->shape.dtype));
    else if (from)
        mr_device_cpu_widen(cpu, mr_device_cpu_kernels(cpu, x), x->data, y->data, n);
    else
        mr_device_cpu_narrow(cpu, mr_device_cpu_kernels(cpu, y), x->data, y->data, n);
}
