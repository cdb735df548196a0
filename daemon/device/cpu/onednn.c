/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cpu/onednn.h"

#include <string.h>

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"
#include "daemon/base/limits.h"

/* What one thread hands to a primitive; only the data handles change from call to call. */
typedef struct onednn_arguments {
    dnnl_memory_t a;
    dnnl_memory_t b;
    dnnl_memory_t bias; /* NULL without one */
    dnnl_memory_t c;
    dnnl_memory_t scratch;
} onednn_arguments;

struct mr_onednn_plan {
    mr_onednn *owner;
    mr_onednn_shape shape;
    uint64_t used; /* mr_onednn.clock at the last use */
    dnnl_primitive_t primitive;
    onednn_arguments *arguments; /* [threads] */
};

struct mr_onednn {
    int threads;
    int inner_threads;
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* [threads] */
    mr_arena scratch;       /* threads times scratch_bytes */
    size_t scratch_bytes;
    uint64_t clock;
    size_t plan_count;
    mr_onednn_plan *plans[MR_DEVICE_PLANS_MAX];
};

void mr_onednn_thread_start(void) {
    omp_set_num_threads(1);
}

/* The sets of instructions are masks of bits: one that contains another has its bits. */
bool mr_onednn_has_bf16(void) {
    dnnl_cpu_isa_t wanted = dnnl_cpu_isa_avx512_core_bf16;
    return (dnnl_get_effective_cpu_isa() & wanted) == wanted;
}

#define ONEDNN_TRY(expression)                                                                     \
    do {                                                                                           \
        dnnl_status_t onednn_status_ = (expression);                                               \
        if (onednn_status_ != dnnl_success)                                                        \
            return onednn_status_;                                                                 \
    } while (0)

/* ---- Where versions 2 and 3 differ: descriptors by value or by handle, operation descriptors. */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t onednn_layout;
typedef const_dnnl_memory_desc_t onednn_view;
#define ONEDNN_BY(layout) (layout)
#define ONEDNN_NO_LAYOUT NULL

static dnnl_status_t onednn_layout_make(const dnnl_dims_t sizes, dnnl_data_type_t type,
                                        const dnnl_dims_t strides, onednn_layout *out_layout) {
    return dnnl_memory_desc_create_with_strides(out_layout, 2, sizes, type, strides);
}

static void onednn_layout_drop(onednn_layout layout) {
    if (layout != NULL)
        (void)dnnl_memory_desc_destroy(layout); /* ours */
}

static dnnl_status_t onednn_sum_append(dnnl_post_ops_t post_ops) {
    return dnnl_post_ops_append_sum(post_ops, 1.0f, 0, dnnl_data_type_undef);
}

static dnnl_status_t onednn_matmul_describe(const onednn_layout layouts[4], bool bias,
                                            dnnl_primitive_attr_t attributes, dnnl_engine_t engine,
                                            dnnl_primitive_desc_t *out_description) {
    return dnnl_matmul_primitive_desc_create(out_description, engine, layouts[0], layouts[1],
                                             bias ? layouts[2] : NULL, layouts[3], attributes);
}
#else
typedef dnnl_memory_desc_t onednn_layout;
typedef const dnnl_memory_desc_t *onednn_view;
#define ONEDNN_BY(layout) (&(layout))
#define ONEDNN_NO_LAYOUT ((dnnl_memory_desc_t){0})

static dnnl_status_t onednn_layout_make(const dnnl_dims_t sizes, dnnl_data_type_t type,
                                        const dnnl_dims_t strides, onednn_layout *out_layout) {
    return dnnl_memory_desc_init_by_strides(out_layout, 2, sizes, type, strides);
}

static void onednn_layout_drop(onednn_layout layout) {
    (void)layout; /* a value */
}

static dnnl_status_t onednn_sum_append(dnnl_post_ops_t post_ops) {
    return dnnl_post_ops_append_sum(post_ops, 1.0f);
}

static dnnl_status_t onednn_matmul_describe(const onednn_layout layouts[4], bool bias,
                                            dnnl_primitive_attr_t attributes, dnnl_engine_t engine,
                                            dnnl_primitive_desc_t *out_description) {
    dnnl_matmul_desc_t operation;
    ONEDNN_TRY(dnnl_matmul_desc_init(&operation, &layouts[0], &layouts[1],
                                     bias ? &layouts[2] : NULL, &layouts[3]));
    return dnnl_primitive_desc_create(out_description, &operation, attributes, engine, NULL);
}
#endif

/* ---- One plan. */

/* Of A, B, bias and C, in this order. */
static dnnl_status_t onednn_layouts_make(const mr_onednn_shape *shape, onednn_layout layouts[4]) {
    dnnl_data_type_t in = shape->bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_data_type_t out = shape->bf16_out ? dnnl_bf16 : dnnl_f32;
    dnnl_dim_t m = (dnnl_dim_t)shape->m;
    dnnl_dim_t n = (dnnl_dim_t)shape->n;
    dnnl_dim_t k = (dnnl_dim_t)shape->k;
    dnnl_dim_t a = (dnnl_dim_t)shape->a_stride;
    dnnl_dim_t b = (dnnl_dim_t)shape->b_stride;
    const dnnl_dims_t a_sizes = {m, k};
    const dnnl_dims_t a_strides = {shape->a_transposed ? 1 : a, shape->a_transposed ? a : 1};
    const dnnl_dims_t b_sizes = {k, n};
    const dnnl_dims_t b_strides = {shape->b_transposed ? 1 : b, shape->b_transposed ? b : 1};
    const dnnl_dims_t bias_sizes = {1, n};
    const dnnl_dims_t bias_strides = {n, 1};
    const dnnl_dims_t c_sizes = {m, n};
    const dnnl_dims_t c_strides = {(dnnl_dim_t)shape->c_stride, 1};
    ONEDNN_TRY(onednn_layout_make(a_sizes, in, a_strides, &layouts[0]));
    ONEDNN_TRY(onednn_layout_make(b_sizes, in, b_strides, &layouts[1]));
    ONEDNN_TRY(onednn_layout_make(bias_sizes, dnnl_f32, bias_strides, &layouts[2]));
    return onednn_layout_make(c_sizes, out, c_strides, &layouts[3]);
}

static dnnl_status_t onednn_attributes_fill(const mr_onednn_shape *shape,
                                            dnnl_primitive_attr_t attributes,
                                            dnnl_post_ops_t post_ops) {
    ONEDNN_TRY(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
    if (!shape->accumulate)
        return dnnl_success;
    ONEDNN_TRY(onednn_sum_append(post_ops));
    return dnnl_primitive_attr_set_post_ops(attributes, post_ops);
}

static dnnl_status_t onednn_describe(mr_onednn *onednn, const mr_onednn_shape *shape,
                                     const onednn_layout layouts[4],
                                     dnnl_primitive_desc_t *out_description) {
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t post_ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attributes);
    if (status == dnnl_success)
        status = dnnl_post_ops_create(&post_ops);
    if (status == dnnl_success)
        status = onednn_attributes_fill(shape, attributes, post_ops);
    if (status == dnnl_success)
        status = onednn_matmul_describe(layouts, shape->bias, attributes, onednn->engine,
                                        out_description);
    if (post_ops != NULL)
        (void)dnnl_post_ops_destroy(post_ops); /* ours; attributes hold a copy */
    if (attributes != NULL)
        (void)dnnl_primitive_attr_destroy(attributes); /* ours; the description holds a copy */
    return status;
}

static void onednn_memory_drop(dnnl_memory_t memory) {
    if (memory != NULL)
        (void)dnnl_memory_destroy(memory); /* ours */
}

static void onednn_plan_destroy(mr_onednn_plan *plan) {
    if (plan == NULL)
        return;
    for (int i = 0; plan->arguments != NULL && i < plan->owner->threads; i++) {
        onednn_memory_drop(plan->arguments[i].a);
        onednn_memory_drop(plan->arguments[i].b);
        onednn_memory_drop(plan->arguments[i].bias);
        onednn_memory_drop(plan->arguments[i].c);
        onednn_memory_drop(plan->arguments[i].scratch);
    }
    if (plan->primitive != NULL)
        (void)dnnl_primitive_destroy(plan->primitive); /* ours */
    mr_free(plan->arguments);
    mr_free(plan);
}

/* Makes the primitive and every thread's handles; *out_scratch is what one run needs. */
static dnnl_status_t onednn_plan_fill(mr_onednn_plan *plan, dnnl_primitive_desc_t description,
                                      const onednn_layout layouts[4], size_t *out_scratch) {
    dnnl_engine_t engine = plan->owner->engine;
    ONEDNN_TRY(dnnl_primitive_create(&plan->primitive, description));
    const_dnnl_primitive_desc_t made;
    ONEDNN_TRY(dnnl_primitive_get_primitive_desc(plan->primitive, &made));
    onednn_view scratch = dnnl_primitive_desc_query_md(made, dnnl_query_scratchpad_md, 0);
    *out_scratch = dnnl_memory_desc_get_size(scratch);
    for (int i = 0; i < plan->owner->threads; i++) {
        onednn_arguments *one = &plan->arguments[i];
        ONEDNN_TRY(dnnl_memory_create(&one->a, ONEDNN_BY(layouts[0]), engine, DNNL_MEMORY_NONE));
        ONEDNN_TRY(dnnl_memory_create(&one->b, ONEDNN_BY(layouts[1]), engine, DNNL_MEMORY_NONE));
        if (plan->shape.bias)
            ONEDNN_TRY(
                dnnl_memory_create(&one->bias, ONEDNN_BY(layouts[2]), engine, DNNL_MEMORY_NONE));
        ONEDNN_TRY(dnnl_memory_create(&one->c, ONEDNN_BY(layouts[3]), engine, DNNL_MEMORY_NONE));
        ONEDNN_TRY(dnnl_memory_create(&one->scratch, scratch, engine, DNNL_MEMORY_NONE));
    }
    return dnnl_success;
}

static dnnl_status_t onednn_plan_make(mr_onednn *onednn, mr_onednn_plan *plan,
                                      size_t *out_scratch) {
    onednn_layout layouts[4] = {ONEDNN_NO_LAYOUT, ONEDNN_NO_LAYOUT, ONEDNN_NO_LAYOUT,
                                ONEDNN_NO_LAYOUT};
    dnnl_primitive_desc_t description = NULL;
    dnnl_status_t status = onednn_layouts_make(&plan->shape, layouts);
    if (status == dnnl_success)
        status = onednn_describe(onednn, &plan->shape, layouts, &description);
    if (status == dnnl_success)
        status = onednn_plan_fill(plan, description, layouts, out_scratch);
    if (description != NULL)
        (void)dnnl_primitive_desc_destroy(description); /* ours; the primitive holds a copy */
    for (int i = 0; i < 4; i++)
        onednn_layout_drop(layouts[i]);
    return status;
}

/* Room for `bytes` of working memory per thread. */
static mr_status onednn_scratch_grow(mr_onednn *onednn, size_t bytes) {
    size_t rounded = mr_arena_rounded(bytes);
    size_t all;
    if (rounded <= onednn->scratch_bytes)
        return MR_OK;
    if (rounded < bytes || !mr_size_mul(rounded, (size_t)onednn->threads, &all))
        return MR_ERROR(RESOURCE_EXHAUSTED, "oneDNN asks for %zu bytes of scratch", bytes);
    mr_arena grown = {0};
    MR_TRY(mr_arena_init(&grown, all));
    mr_arena_deinit(&onednn->scratch);
    onednn->scratch = grown;
    onednn->scratch_bytes = rounded;
    return MR_OK;
}

static mr_status onednn_plan_create(mr_onednn *onednn, const mr_onednn_shape *shape,
                                    mr_onednn_plan **out_plan) {
    size_t scratch = 0;
    mr_status status = MR_OK;
    mr_onednn_plan *plan = mr_alloc(sizeof(*plan));
    if (plan == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a matrix product's plan");
    omp_set_num_threads(onednn->inner_threads); /* of the primitives that this thread makes */
    plan->owner = onednn;
    plan->shape = *shape;
    plan->arguments = mr_alloc_array((size_t)onednn->threads, sizeof(onednn_arguments));
    if (plan->arguments == NULL) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a matrix product's arguments");
    } else {
        dnnl_status_t made = onednn_plan_make(onednn, plan, &scratch);
        if (made != dnnl_success)
            status = MR_ERROR(INTERNAL, "oneDNN makes no product m=%zu n=%zu k=%zu: %s", shape->m,
                              shape->n, shape->k, dnnl_status2str(made));
    }
    if (mr_status_is_ok(status))
        status = onednn_scratch_grow(onednn, scratch);
    if (!mr_status_is_ok(status)) {
        onednn_plan_destroy(plan);
        return status;
    }
    *out_plan = plan;
    return MR_OK;
}

/* ---- The set of plans. */

static bool onednn_shape_equal(const mr_onednn_shape *x, const mr_onednn_shape *y) {
    return x->m == y->m && x->n == y->n && x->k == y->k && x->a_stride == y->a_stride &&
           x->b_stride == y->b_stride && x->c_stride == y->c_stride &&
           x->a_transposed == y->a_transposed && x->b_transposed == y->b_transposed &&
           x->bias == y->bias && x->accumulate == y->accumulate && x->bf16 == y->bf16 &&
           x->bf16_out == y->bf16_out;
}

/* Where a new plan goes: behind the others, or in place of the one unused for longest. */
static size_t onednn_slot(mr_onednn *onednn) {
    size_t oldest = 0;
    if (onednn->plan_count < MR_DEVICE_PLANS_MAX)
        return onednn->plan_count++;
    for (size_t i = 1; i < onednn->plan_count; i++)
        if (onednn->plans[i]->used < onednn->plans[oldest]->used)
            oldest = i;
    onednn_plan_destroy(onednn->plans[oldest]);
    return oldest;
}

mr_status mr_onednn_plan_get(mr_onednn *onednn, const mr_onednn_shape *shape,
                             mr_onednn_plan **out_plan) {
    mr_onednn_plan *plan = NULL;
    for (size_t i = 0; i < onednn->plan_count && plan == NULL; i++)
        if (onednn_shape_equal(&onednn->plans[i]->shape, shape))
            plan = onednn->plans[i];
    if (plan == NULL) {
        MR_TRY(onednn_plan_create(onednn, shape, &plan));
        onednn->plans[onednn_slot(onednn)] = plan;
    }
    plan->used = ++onednn->clock;
    *out_plan = plan;
    return MR_OK;
}

static dnnl_status_t onednn_handle(dnnl_memory_t memory, const void *data) {
    return dnnl_memory_set_data_handle(memory, (void *)data); /* inputs are only read */
}

static dnnl_status_t onednn_execute(mr_onednn_plan *plan, int thread, const void *a,
                                    const void *b, const float *bias, void *c) {
    mr_onednn *onednn = plan->owner;
    onednn_arguments *one = &plan->arguments[thread];
    dnnl_exec_arg_t arguments[5] = {
        {DNNL_ARG_SRC, one->a},
        {DNNL_ARG_WEIGHTS, one->b},
        {DNNL_ARG_DST, one->c},
        {DNNL_ARG_SCRATCHPAD, one->scratch},
        {DNNL_ARG_BIAS, one->bias},
    };
    ONEDNN_TRY(onednn_handle(one->a, a));
    ONEDNN_TRY(onednn_handle(one->b, b));
    ONEDNN_TRY(onednn_handle(one->c, c));
    ONEDNN_TRY(onednn_handle(one->scratch,
                             onednn->scratch.base + (size_t)thread * onednn->scratch_bytes));
    if (plan->shape.bias)
        ONEDNN_TRY(onednn_handle(one->bias, bias));
    ONEDNN_TRY(dnnl_primitive_execute(plan->primitive, onednn->streams[thread],
                                      plan->shape.bias ? 5 : 4, arguments));
    return dnnl_stream_wait(onednn->streams[thread]);
}

const char *mr_onednn_run(mr_onednn_plan *plan, int thread, const void *a, const void *b,
                          const float *bias, void *c) {
    MR_ASSERT(thread >= 0 && thread < plan->owner->threads);
    dnnl_status_t status = onednn_execute(plan, thread, a, b, bias, c);
    return status == dnnl_success ? NULL : dnnl_status2str(status);
}

static dnnl_status_t onednn_open(mr_onednn *onednn) {
    ONEDNN_TRY(dnnl_engine_create(&onednn->engine, dnnl_cpu, 0));
    for (int i = 0; i < onednn->threads; i++)
        ONEDNN_TRY(dnnl_stream_create(&onednn->streams[i], onednn->engine,
                                      dnnl_stream_default_flags));
    return dnnl_success;
}

mr_status mr_onednn_create(int threads, int inner_threads, mr_onednn **out_onednn) {
    mr_onednn *onednn = mr_alloc(sizeof(*onednn));
    if (onednn == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for oneDNN's plans");
    onednn->threads = threads;
    onednn->inner_threads = inner_threads;
    onednn->streams = mr_alloc_array((size_t)threads, sizeof(dnnl_stream_t));
    if (onednn->streams == NULL) {
        mr_free(onednn);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %d oneDNN streams", threads);
    }
    mr_onednn_thread_start();
    dnnl_status_t opened = onednn_open(onednn);
    if (opened != dnnl_success) {
        mr_onednn_destroy(onednn);
        return MR_ERROR(UNAVAILABLE, "oneDNN does not start: %s", dnnl_status2str(opened));
    }
    *out_onednn = onednn;
    return MR_OK;
}

void mr_onednn_destroy(mr_onednn *onednn) {
    if (onednn == NULL)
        return;
    for (size_t i = 0; i < onednn->plan_count; i++)
        onednn_plan_destroy(onednn->plans[i]);
    for (int i = 0; i < onednn->threads; i++)
        if (onednn->streams[i] != NULL)
            (void)dnnl_stream_destroy(onednn->streams[i]); /* ours */
    if (onednn->engine != NULL)
        (void)dnnl_engine_destroy(onednn->engine); /* ours */
    mr_arena_deinit(&onednn->scratch);
    mr_free(onednn->streams);
    mr_free(onednn);
}
