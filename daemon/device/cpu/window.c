/* SPDX-License-Identifier: Apache-2.0 */
/* window.c: what slides over the planes of [N, C, H, W]: rows gathered for a product and scattered
 * back, the largest element of each window, and the transposition between planes and rows. Each sum
 * is within one plane and runs in the order of positions, so bits do not depend on threads.
 * Two-byte numbers are copied as they are where nothing is added; sums run in f32, each result is
 * rounded once. */
#include <math.h>
#include <string.h>

#include "daemon/base/half.h"
#include "daemon/device/cpu/device_cpu.h"

typedef struct window_work {
    const mr_cpu_kernels *kernels;
    mr_window window;
    size_t C;
    size_t H;
    size_t W;
    size_t OH;
    size_t OW;
    size_t N;
    mr_dtype dtype;
    size_t bytes; /* of an element */
    const unsigned char *x;
    const unsigned char *dy;   /* rows, or planes of outputs */
    unsigned char *out;        /* rows, planes of outputs, or planes of inputs */
    mr_device_cpu_stage stage; /* of two-byte types: a plane of floats */
} window_work;

/* x: [N, C, H, W]. */
static window_work window_work_make(mr_device_cpu *cpu, const mr_window *window,
                                    const mr_tensor *x) {
    MR_ASSERT(x->shape.dim_count == 4);
    window_work work = {
        .kernels = mr_device_cpu_kernels(cpu, x),
        .window = *window,
        .N = x->shape.dims[0],
        .C = x->shape.dims[1],
        .H = x->shape.dims[2],
        .W = x->shape.dims[3],
        .OH = mr_window_positions(window, x->shape.dims[2]),
        .OW = mr_window_positions(window, x->shape.dims[3]),
        .bytes = mr_device_cpu_is_half(x) ? sizeof(uint16_t) : sizeof(float),
        .dtype = x->shape.dtype,
        .x = x->data,
    };
    return work;
}

static float window_float(const window_work *work, const unsigned char *from, size_t at) {
    if (work->bytes == sizeof(uint16_t)) {
        uint16_t half;
        memcpy(&half, from + at * sizeof(half), sizeof(half));
        return mr_half_widen(work->dtype, half);
    }
    float value;
    memcpy(&value, from + at * sizeof(value), sizeof(value));
    return value;
}

/* One line of the window at output column ow: kernel elements of an input line, zeros beside it. */
static void window_line(const window_work *work, const unsigned char *line, size_t ow,
                        unsigned char *to) {
    size_t kernel = work->window.kernel;
    size_t first = ow * work->window.stride; /* of the padded line */
    size_t before = first < work->window.padding ? work->window.padding - first : 0;
    size_t at = first + before - work->window.padding;
    size_t n = before < kernel ? kernel - before : 0;
    if (before > kernel)
        before = kernel;
    if (at >= work->W)
        n = 0;
    else if (n > work->W - at)
        n = work->W - at;
    memset(to, 0, kernel * work->bytes);
    if (n > 0)
        memcpy(to + before * work->bytes, line + at * work->bytes, n * work->bytes);
}

/* The rows of one output line (n, oh). */
static void window_gather_task(void *context, size_t task, int thread) {
    (void)thread;
    const window_work *work = context;
    size_t kernel = work->window.kernel;
    size_t n = task / work->OH;
    size_t oh = task % work->OH;
    unsigned char *to = work->out + task * work->OW * work->C * kernel * kernel * work->bytes;
    for (size_t ow = 0; ow < work->OW; ow++)
        for (size_t c = 0; c < work->C; c++)
            for (size_t i = 0; i < kernel; i++, to += kernel * work->bytes) {
                size_t padded = oh * work->window.stride + i;
                size_t h = padded - work->window.padding;
                const unsigned char *plane =
                    work->x + (n * work->C + c) * work->H * work->W * work->bytes;
                if (padded < work->window.padding || h >= work->H)
                    memset(to, 0, kernel * work->bytes);
                else
                    window_line(work, plane + h * work->W * work->bytes, ow, to);
            }
}

void mr_device_cpu_window_gather(mr_device *device, const mr_window *window, const mr_tensor *x,
                                 mr_tensor *rows) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    window_work work = window_work_make(cpu, window, x);
    MR_ASSERT(rows->shape.dtype == x->shape.dtype);
    MR_ASSERT(mr_device_cpu_width(rows) == work.C * window->kernel * window->kernel);
    MR_ASSERT(mr_device_cpu_rows(rows) == work.N * work.OH * work.OW);
    work.out = rows->data;
    mr_pool_run(cpu->pool, work.N * work.OH, window_gather_task, &work);
}

/* Adds the rows of one output position to the floats of plane c. */
static void window_add_position(const window_work *work, const unsigned char *row, size_t c,
                                size_t oh, size_t ow, float *plane) {
    size_t kernel = work->window.kernel;
    for (size_t i = 0; i < kernel; i++) {
        size_t padded_h = oh * work->window.stride + i;
        size_t h = padded_h - work->window.padding;
        if (padded_h < work->window.padding || h >= work->H)
            continue;
        for (size_t j = 0; j < kernel; j++) {
            size_t padded_w = ow * work->window.stride + j;
            size_t w = padded_w - work->window.padding;
            if (padded_w >= work->window.padding && w < work->W)
                plane[h * work->W + w] += window_float(work, row, (c * kernel + i) * kernel + j);
        }
    }
}

/* Where task's plane of inputs is summed: in place, or staged. */
static float *window_plane(const window_work *work, size_t task, int thread) {
    size_t elements = work->H * work->W;
    float *plane = work->stage.base == NULL
                       ? (float *)(void *)(work->out + task * elements * sizeof(float))
                       : mr_device_cpu_stage_of(&work->stage, thread);
    memset(plane, 0, elements * sizeof(*plane));
    return plane;
}

static void window_plane_done(const window_work *work, size_t task, const float *plane) {
    size_t elements = work->H * work->W;
    if (work->stage.base != NULL)
        work->kernels->narrow(plane, (uint16_t *)(void *)work->out + task * elements, elements);
}

/* One plane (n, c) of dx. */
static void window_scatter_task(void *context, size_t task, int thread) {
    const window_work *work = context;
    size_t n = task / work->C;
    size_t row_bytes = work->C * work->window.kernel * work->window.kernel * work->bytes;
    const unsigned char *row = work->dy + n * work->OH * work->OW * row_bytes;
    float *plane = window_plane(work, task, thread);
    for (size_t oh = 0; oh < work->OH; oh++)
        for (size_t ow = 0; ow < work->OW; ow++, row += row_bytes)
            window_add_position(work, row, task % work->C, oh, ow, plane);
    window_plane_done(work, task, plane);
}

/* Runs a task for each plane (n, c) of inputs, staged where they are bf16. */
static void window_run_planes(mr_device_cpu *cpu, window_work *work, mr_pool_task task) {
    bool staged = work->bytes == sizeof(uint16_t);
    if (staged)
        work->stage = mr_device_cpu_staging(cpu, work->H * work->W);
    if (!staged || work->stage.base != NULL)
        mr_pool_run(cpu->pool, work->N * work->C, task, work);
}

void mr_device_cpu_window_scatter(mr_device *device, const mr_window *window,
                                  const mr_tensor *rows, mr_tensor *dx) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    window_work work = window_work_make(cpu, window, dx);
    MR_ASSERT(rows->shape.dtype == dx->shape.dtype);
    MR_ASSERT(mr_device_cpu_width(rows) == work.C * window->kernel * window->kernel);
    MR_ASSERT(mr_device_cpu_rows(rows) == work.N * work.OH * work.OW);
    work.dy = rows->data;
    work.out = dx->data;
    window_run_planes(cpu, &work, window_scatter_task);
}

/* ---- Pooling. */

/* Index within a plane of the window's largest element: the first of equals, and the first that is
 * not a number where there is one. At least one element is no padding. */
static size_t window_largest(const window_work *work, const unsigned char *plane, size_t oh,
                             size_t ow) {
    size_t found = SIZE_MAX;
    float largest = 0;
    for (size_t i = 0; i < work->window.kernel; i++)
        for (size_t j = 0; j < work->window.kernel; j++) {
            size_t padded_h = oh * work->window.stride + i;
            size_t padded_w = ow * work->window.stride + j;
            size_t h = padded_h - work->window.padding;
            size_t w = padded_w - work->window.padding;
            if (padded_h < work->window.padding || padded_w < work->window.padding ||
                h >= work->H || w >= work->W)
                continue;
            float value = window_float(work, plane, h * work->W + w);
            if (found == SIZE_MAX || value > largest || (isnan(value) && !isnan(largest))) {
                found = h * work->W + w;
                largest = value;
            }
        }
    MR_ASSERT(found != SIZE_MAX);
    return found;
}

static void max_pool_forward_task(void *context, size_t task, int thread) {
    (void)thread;
    const window_work *work = context;
    const unsigned char *plane = work->x + task * work->H * work->W * work->bytes;
    unsigned char *to = work->out + task * work->OH * work->OW * work->bytes;
    for (size_t oh = 0; oh < work->OH; oh++)
        for (size_t ow = 0; ow < work->OW; ow++, to += work->bytes)
            memcpy(to, plane + window_largest(work, plane, oh, ow) * work->bytes, work->bytes);
}

void mr_device_cpu_max_pool_forward(mr_device *device, const mr_window *window, const mr_tensor *x,
                                    mr_tensor *y) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    window_work work = window_work_make(cpu, window, x);
    MR_ASSERT(y->shape.dtype == x->shape.dtype);
    MR_ASSERT(mr_device_cpu_count(y) == work.N * work.C * work.OH * work.OW);
    work.out = y->data;
    mr_pool_run(cpu->pool, work.N * work.C, max_pool_forward_task, &work);
}

static void max_pool_backward_task(void *context, size_t task, int thread) {
    const window_work *work = context;
    const unsigned char *x = work->x + task * work->H * work->W * work->bytes;
    const unsigned char *dy = work->dy + task * work->OH * work->OW * work->bytes;
    float *plane = window_plane(work, task, thread);
    for (size_t oh = 0; oh < work->OH; oh++)
        for (size_t ow = 0; ow < work->OW; ow++)
            plane[window_largest(work, x, oh, ow)] += window_float(work, dy, oh * work->OW + ow);
    window_plane_done(work, task, plane);
}

void mr_device_cpu_max_pool_backward(mr_device *device, const mr_window *window,
                                     const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    window_work work = window_work_make(cpu, window, x);
    MR_ASSERT(dy->shape.dtype == x->shape.dtype && dx->shape.dtype == x->shape.dtype);
    MR_ASSERT(mr_device_cpu_count(dx) == mr_device_cpu_count(x));
    MR_ASSERT(mr_device_cpu_count(dy) == work.N * work.C * work.OH * work.OW);
    work.dy = dy->data;
    work.out = dx->data;
    window_run_planes(cpu, &work, max_pool_backward_task);
}

/* ---- Transposition. */

typedef struct transpose_work {
    size_t A;
    size_t B;
    size_t bytes;
    const unsigned char *from;
    unsigned char *to;
} transpose_work;

/* Line b of matrix n: to[n][b][...] = from[n][...][b]. */
static void transpose_task(void *context, size_t task, int thread) {
    (void)thread;
    const transpose_work *work = context;
    size_t n = task / work->B;
    size_t b = task % work->B;
    const unsigned char *from = work->from + (n * work->A * work->B + b) * work->bytes;
    unsigned char *to = work->to + task * work->A * work->bytes;
    for (size_t a = 0; a < work->A; a++)
        memcpy(to + a * work->bytes, from + a * work->B * work->bytes, work->bytes);
}

void mr_device_cpu_transpose(mr_device *device, const mr_tensor *from, mr_tensor *to) {
    mr_device_cpu *cpu = mr_device_cpu_of(device);
    MR_ASSERT(from->shape.dim_count == 3);
    MR_ASSERT(from->shape.dtype == to->shape.dtype);
    MR_ASSERT(mr_device_cpu_count(to) == mr_device_cpu_count(from));
    transpose_work work = {
        .A = from->shape.dims[1],
        .B = from->shape.dims[2],
        .bytes = mr_device_cpu_is_half(from) ? sizeof(uint16_t) : sizeof(float),
        .from = from->data,
        .to = to->data,
    };
    mr_pool_run(cpu->pool, from->shape.dims[0] * work.B, transpose_task, &work);
}
