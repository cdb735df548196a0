/* SPDX-License-Identifier: Apache-2.0 */
/* pointwise.c: operations on each element alone, and copies, in chunks of CPU_CHUNK elements. bf16
 * is staged in pieces that stay in the first cache. */
#include <string.h>

#include "daemon/device/cpu/device_cpu.h"

typedef enum pointwise_what {
    POINTWISE_FORWARD,
    POINTWISE_BACKWARD,
    POINTWISE_DROPOUT,
    POINTWISE_ADD,
    POINTWISE_ACCUMULATE
} pointwise_what;

typedef struct pointwise_work {
    const mr_cpu_kernels *kernels;
    pointwise_what what;
    mr_pointwise kind;
    const mr_dropout *dropout;
    const mr_tensor *a;
    const mr_tensor *b; /* NULL: none */
    mr_tensor *out;
    size_t n;
    mr_device_cpu_stage stage; /* bf16: two pieces */
} pointwise_work;

enum { POINTWISE_PIECE = 2048 };

/* Elements [at, at + n) of a share, run by run of the whole. */
static void pointwise_dropout(const pointwise_work *work, size_t at, size_t n, const float *x,
                              float *y) {
    uint64_t run = work->dropout->run;
    for (size_t done = 0; done < n;) {
        uint64_t left = run == 0 ? n : run - (at + done) % run;
        size_t count = left < n - done ? (size_t)left : n - done;
        work->kernels->dropout(x + done, work->dropout, mr_dropout_word(work->dropout, at + done),
                               y + done, count);
        done += count;
    }
}

/* n elements from number `at` on, in f32. */
static void pointwise_piece(const pointwise_work *work, size_t at, size_t n, const float *a,
                            const float *b, float *out) {
    const mr_cpu_kernels *kernels = work->kernels;
    switch (work->what) {
    case POINTWISE_FORWARD:
        kernels->pointwise_forward(work->kind, a, out, n);
        break;
    case POINTWISE_BACKWARD:
        kernels->pointwise_backward(work->kind, a, b, out, n);
        break;
    case POINTWISE_DROPOUT:
        pointwise_dropout(work, at, n, a, out);
        break;
    case POINTWISE_ADD:
        kernels->add(a, b, work->dropout, at, out, n);
        break;
    case POINTWISE_ACCUMULATE:
        kernels->accumulate(out, a, n);
        break;
    }
}

static void pointwise_task(void *context, size_t task, int thread) {
    (void)thread;
    const pointwise_work *work = context;
    size_t at = task * CPU_CHUNK;
    size_t n = work->n - at < CPU_CHUNK ? work->n - at : CPU_CHUNK;
    const float *b = work->b == NULL ? NULL : mr_device_cpu_floats(work->b) + at;
    pointwise_piece(work, at, n, mr_device_cpu_floats(work->a) + at, b,
                    mr_device_cpu_floats(work->out) + at);
}

/* The result goes over b's floats where there is a b: a kernel may write over dy, or over either
 * summand, but not over the x of a derivative. */
static void pointwise_staged_task(void *context, size_t task, int thread) {
    const pointwise_work *work = context;
    float *a = mr_device_cpu_stage_of(&work->stage, thread);
    float *b = a + POINTWISE_PIECE;
    size_t left = work->n - task * CPU_CHUNK;
    size_t end = task * CPU_CHUNK + (left < CPU_CHUNK ? left : CPU_CHUNK);
    for (size_t at = task * CPU_CHUNK; at < end; at += POINTWISE_PIECE) {
        size_t n = end - at < POINTWISE_PIECE ? end - at : POINTWISE_PIECE;
        float *out = work->b == NULL ? a : b;
        work->kernels->widen(mr_device_cpu_halves(work->a) + at, a, n);
        if (work->b != NULL)
            work->kernels->widen(mr_device_cpu_halves(work->b) + at, b, n);
        pointwise_piece(work, at, n, a, b, out);
        work->kernels->narrow(out, mr_device_cpu_halves(work->out) + at, n);
    }
}

static void pointwise_run(mr_device *device, pointwise_work *work) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    bool staged = mr_device_cpu_is_half(work->a);
    MR_ASSERT(mr_device_cpu_is_half(work->out) == staged);
    work->kernels = mr_device_cpu_kernels(cpu, work->a);
    if (staged)
        work->stage = mr_device_cpu_staging(cpu, 2 * POINTWISE_PIECE);
    if (!staged || work->stage.base != NULL)
        mr_pool_run(cpu->pool, mr_device_cpu_parts(work->n, CPU_CHUNK),
                    staged ? pointwise_staged_task : pointwise_task, work);
}

void mr_device_cpu_pointwise_forward(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                                     mr_tensor *y) {
    pointwise_work work = {
        .what = POINTWISE_FORWARD,
        .kind = kind,
        .a = x,
        .out = y,
        .n = mr_device_cpu_count(x),
    };
    MR_ASSERT(kind < MR_POINTWISE_COUNT);
    MR_ASSERT(mr_device_cpu_count(y) == work.n);
    pointwise_run(device, &work);
}

void mr_device_cpu_pointwise_backward(mr_device *device, mr_pointwise kind, const mr_tensor *x,
                                      const mr_tensor *dy, mr_tensor *dx) {
    pointwise_work work = {
        .what = POINTWISE_BACKWARD,
        .kind = kind,
        .a = x,
        .b = dy,
        .out = dx,
        .n = mr_device_cpu_count(x),
    };
    MR_ASSERT(kind < MR_POINTWISE_COUNT);
    MR_ASSERT(mr_device_cpu_count(dy) == work.n && mr_device_cpu_count(dx) == work.n);
    pointwise_run(device, &work);
}

void mr_device_cpu_dropout(mr_device *device, const mr_dropout *dropout, const mr_tensor *x,
                           mr_tensor *y) {
    pointwise_work work = {
        .what = POINTWISE_DROPOUT,
        .dropout = dropout,
        .a = x,
        .out = y,
        .n = mr_device_cpu_count(x),
    };
    MR_ASSERT(mr_device_cpu_count(y) == work.n);
    pointwise_run(device, &work);
}

void mr_device_cpu_add(mr_device *device, const mr_tensor *a, const mr_tensor *b,
                       const mr_dropout *dropout, mr_tensor *out) {
    pointwise_work work = {
        .what = POINTWISE_ADD,
        .dropout = dropout,
        .a = a,
        .b = b,
        .out = out,
        .n = mr_device_cpu_count(a),
    };
    MR_ASSERT(mr_device_cpu_count(b) == work.n && mr_device_cpu_count(out) == work.n);
    MR_ASSERT(dropout == NULL || dropout->run == 0);
    pointwise_run(device, &work);
}

void mr_device_cpu_accumulate(mr_device *device, mr_tensor *a, const mr_tensor *b) {
    pointwise_work work = {
        .what = POINTWISE_ACCUMULATE,
        .a = b,
        .out = a,
        .n = mr_device_cpu_count(a),
    };
    MR_ASSERT(mr_device_cpu_count(b) == work.n);
    MR_ASSERT(!mr_device_cpu_is_half(a) && !mr_device_cpu_is_half(b));
    pointwise_run(device, &work);
}

/* ---- Bytes. */

enum { COPY_BYTES = 1 << 18 }; /* of one task */

typedef struct copy_work {
    unsigned char *to;
    const unsigned char *from; /* NULL: zeros */
    size_t bytes;
} copy_work;

static void copy_task(void *context, size_t task, int thread) {
    (void)thread;
    const copy_work *work = context;
    size_t at = task * COPY_BYTES;
    size_t bytes = work->bytes - at < COPY_BYTES ? work->bytes - at : COPY_BYTES;
    if (work->from == NULL)
        memset(work->to + at, 0, bytes);
    else
        memcpy(work->to + at, work->from + at, bytes);
}

void mr_device_cpu_copy(mr_device *device, void *to, const void *from, size_t bytes) {
    copy_work work = {.to = to, .from = from, .bytes = bytes};
    if (bytes > 0 && to != from)
        mr_pool_run(mr_device_cpu_of(device)->pool, mr_device_cpu_parts(bytes, COPY_BYTES),
                    copy_task, &work);
}

void mr_device_cpu_zero(mr_device *device, void *at, size_t bytes) {
    copy_work work = {.to = at, .bytes = bytes};
    if (bytes > 0)
        mr_pool_run(mr_device_cpu_of(device)->pool, mr_device_cpu_parts(bytes, COPY_BYTES),
                    copy_task, &work);
}
