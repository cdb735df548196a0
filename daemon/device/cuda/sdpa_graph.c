/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cuda/sdpa_graph.h"

#include <stdio.h>

#include <cudnn.h>

#include "daemon/base/alloc.h"

enum {
    GRAPH_OPERATIONS_MAX = 32,
    GRAPH_DESCRIPTORS_MAX = 160,
    GRAPH_ALIGNMENT = 16, /* bytes, of all memory */
    GRAPH_VIRTUAL_UID = 1000
};

typedef cudnnBackendDescriptor_t graph_node;

/* Everything is made through functions that do nothing after a first failure, so that a graph reads
 * as the list of its operations. */
struct mr_sdpa_graph {
    graph_node owned[GRAPH_DESCRIPTORS_MAX];
    int owned_count;
    graph_node operations[GRAPH_OPERATIONS_MAX];
    int64_t operation_count;
    graph_node graph;
    int64_t next_uid;
    cudnnStatus_t failure; /* the first */
    char what[160];
};

/* Dimensions and strides of a tensor: batch, head, row, column. */
typedef struct graph_layout {
    int64_t dims[4];
    int64_t strides[4];
} graph_layout;

static void graph_check(mr_sdpa_graph *g, cudnnStatus_t status, const char *what, int number) {
    if (status == CUDNN_STATUS_SUCCESS || g->failure != CUDNN_STATUS_SUCCESS)
        return;
    char text[96] = "";
    cudnnGetLastErrorString(text, sizeof(text));
    g->failure = status;
    snprintf(g->what, sizeof(g->what), "%s %d: %s", what, number, text);
}

static graph_node graph_new(mr_sdpa_graph *g, cudnnBackendDescriptorType_t type) {
    graph_node node = NULL;
    if (g->failure != CUDNN_STATUS_SUCCESS)
        return NULL;
    MR_ASSERT(g->owned_count < GRAPH_DESCRIPTORS_MAX);
    graph_check(g, cudnnBackendCreateDescriptor(type, &node), "descriptor of type", (int)type);
    if (node != NULL)
        g->owned[g->owned_count++] = node;
    return node;
}

static void graph_set(mr_sdpa_graph *g, graph_node node, cudnnBackendAttributeName_t name,
                      cudnnBackendAttributeType_t type, int64_t count, const void *value) {
    if (g->failure == CUDNN_STATUS_SUCCESS)
        graph_check(g, cudnnBackendSetAttribute(node, name, type, count, value), "attribute",
                    (int)name);
}

static void graph_set_node(mr_sdpa_graph *g, graph_node node, cudnnBackendAttributeName_t name,
                           graph_node value) {
    graph_set(g, node, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void graph_finish(mr_sdpa_graph *g, graph_node node, const char *what) {
    if (g->failure == CUDNN_STATUS_SUCCESS)
        graph_check(g, cudnnBackendFinalize(node), what, (int)g->operation_count);
}

static void graph_finish_operation(mr_sdpa_graph *g, graph_node node) {
    graph_finish(g, node, "operation");
    MR_ASSERT(g->operation_count < GRAPH_OPERATIONS_MAX);
    g->operations[g->operation_count++] = node;
}

typedef enum graph_storage { GRAPH_MEMORY, GRAPH_VIRTUAL, GRAPH_BY_VALUE } graph_storage;

static graph_node graph_tensor(mr_sdpa_graph *g, int64_t uid, cudnnDataType_t dtype,
                               graph_storage storage, const graph_layout *layout) {
    const int64_t alignment = GRAPH_ALIGNMENT;
    const bool is_virtual = storage == GRAPH_VIRTUAL;
    const bool by_value = storage == GRAPH_BY_VALUE;
    graph_node t = graph_new(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    graph_set(g, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &dtype);
    graph_set(g, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, layout->dims);
    graph_set(g, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, layout->strides);
    graph_set(g, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    graph_set(g, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    graph_set(g, t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    graph_set(g, t, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    graph_finish(g, t, "tensor before operation");
    return t;
}

static graph_layout graph_packed(int64_t b, int64_t h, int64_t rows, int64_t columns) {
    return (graph_layout){.dims = {b, h, rows, columns},
                          .strides = {h * rows * columns, rows * columns, columns, 1}};
}

static graph_layout graph_swap_dims(graph_layout layout) {
    return (graph_layout){
        .dims = {layout.dims[0], layout.dims[1], layout.dims[3], layout.dims[2]},
        .strides = {layout.strides[0], layout.strides[1], layout.strides[3], layout.strides[2]}};
}

/* A result between two operations, never stored. */
static graph_node graph_between(mr_sdpa_graph *g, cudnnDataType_t dtype, graph_layout layout) {
    return graph_tensor(g, g->next_uid++, dtype, GRAPH_VIRTUAL, &layout);
}

static graph_node graph_scalar(mr_sdpa_graph *g, mr_sdpa_uid uid) {
    graph_layout one = graph_packed(1, 1, 1, 1);
    return graph_tensor(g, uid, CUDNN_DATA_FLOAT, GRAPH_BY_VALUE, &one);
}

static void graph_matmul(mr_sdpa_graph *g, graph_node a, graph_node b, graph_node c) {
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    graph_node how = graph_new(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    graph_set(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    graph_finish(g, how, "matmul of operation");
    graph_node op = graph_new(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    graph_finish_operation(g, op);
}

/* axis: of GEN_INDEX, else -1. b and t may be NULL. */
static void graph_pointwise_with(mr_sdpa_graph *g, cudnnPointwiseMode_t mode,
                                 cudnnDataType_t precision, int64_t axis, graph_node x,
                                 graph_node b, graph_node t, graph_node y) {
    graph_node how = graph_new(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    graph_set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    graph_set(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    if (axis >= 0)
        graph_set(g, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
    graph_finish(g, how, "pointwise of operation");
    graph_node op = graph_new(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b != NULL)
        graph_set_node(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    if (t != NULL)
        graph_set_node(g, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    graph_finish_operation(g, op);
}

/* Returns y, a new result of the given layout. b may be NULL. */
static graph_node graph_pointwise(mr_sdpa_graph *g, cudnnPointwiseMode_t mode, graph_node x,
                                  graph_node b, graph_layout layout) {
    graph_node y = graph_between(g, CUDNN_DATA_FLOAT, layout);
    graph_pointwise_with(g, mode, CUDNN_DATA_FLOAT, -1, x, b, NULL, y);
    return y;
}

static void graph_reduce(mr_sdpa_graph *g, cudnnReduceTensorOp_t operator, graph_node x,
                         graph_node y) {
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    graph_node how = graph_new(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    graph_set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1,
              &operator);
    graph_set(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    graph_finish(g, how, "reduction of operation");
    graph_node op = graph_new(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    graph_finish_operation(g, op);
}

static graph_node graph_reshape(mr_sdpa_graph *g, graph_node x, graph_layout layout) {
    graph_node y = graph_between(g, CUDNN_DATA_BFLOAT16, layout);
    graph_node op = graph_new(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    graph_set_node(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    graph_finish_operation(g, op);
    return y;
}

/* Four operations: s where row >= column, minus infinity elsewhere. */
static graph_node graph_mask(mr_sdpa_graph *g, graph_node s, graph_node lowest,
                             graph_layout scores) {
    graph_node row = graph_between(g, CUDNN_DATA_INT32, scores);
    graph_node column = graph_between(g, CUDNN_DATA_INT32, scores);
    graph_node keep = graph_between(g, CUDNN_DATA_BOOLEAN, scores);
    graph_node masked = graph_between(g, CUDNN_DATA_FLOAT, scores);
    graph_pointwise_with(g, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, 2, s, NULL, NULL, row);
    graph_pointwise_with(g, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, 3, s, NULL, NULL, column);
    graph_pointwise_with(g, CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN, -1, row, column, NULL,
                         keep);
    graph_pointwise_with(g, CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, -1, s, lowest, keep,
                         masked);
    return masked;
}

/* Layouts that both directions share. */
typedef struct graph_layouts {
    graph_layout q;       /* [B, H, T, D] within rows of qkv */
    graph_layout kv;      /* [B, HK, T, D] within rows of qkv */
    graph_layout o;       /* [B, H, T, D] within rows of H D */
    graph_layout scores;  /* [B, H, T, T] */
    graph_layout rows;    /* [B, H, T, 1] */
    graph_layout heads;   /* [B, H, T, D] packed */
} graph_layouts;

static graph_layouts graph_layouts_of(const mr_sdpa_shape *s) {
    int64_t row = (s->H + 2 * s->HK) * s->D;
    int64_t width = s->H * s->D;
    return (graph_layouts){
        .q = {.dims = {s->B, s->H, s->T, s->D}, .strides = {s->T * row, s->D, row, 1}},
        .kv = {.dims = {s->B, s->HK, s->T, s->D}, .strides = {s->T * row, s->D, row, 1}},
        .o = {.dims = {s->B, s->H, s->T, s->D}, .strides = {s->T * width, s->D, width, 1}},
        .scores = graph_packed(s->B, s->H, s->T, s->T),
        .rows = graph_packed(s->B, s->H, s->T, 1),
        .heads = graph_packed(s->B, s->H, s->T, s->D),
    };
}

static graph_node graph_bf16(mr_sdpa_graph *g, mr_sdpa_uid uid, graph_layout layout) {
    return graph_tensor(g, uid, CUDNN_DATA_BFLOAT16, GRAPH_MEMORY, &layout);
}

static void graph_forward(mr_sdpa_graph *g, const mr_sdpa_shape *shape) {
    graph_layouts l = graph_layouts_of(shape);
    graph_node q = graph_bf16(g, MR_SDPA_Q, l.q);
    graph_node k_transposed = graph_bf16(g, MR_SDPA_K, graph_swap_dims(l.kv));
    graph_node v = graph_bf16(g, MR_SDPA_V, l.kv);
    graph_node o = graph_bf16(g, MR_SDPA_O, l.o);
    graph_node statistic =
        graph_tensor(g, MR_SDPA_STATISTIC, CUDNN_DATA_FLOAT, GRAPH_MEMORY, &l.rows);
    graph_node scale = graph_scalar(g, MR_SDPA_SCALE);
    graph_node lowest = graph_scalar(g, MR_SDPA_LOWEST);

    graph_node s = graph_between(g, CUDNN_DATA_FLOAT, l.scores);
    graph_matmul(g, q, k_transposed, s);
    graph_node scaled = graph_pointwise(g, CUDNN_POINTWISE_MUL, s, scale, l.scores);
    graph_node masked = graph_mask(g, scaled, lowest, l.scores);
    graph_node max = graph_between(g, CUDNN_DATA_FLOAT, l.rows);
    graph_reduce(g, CUDNN_REDUCE_TENSOR_MAX, masked, max);
    graph_node below = graph_pointwise(g, CUDNN_POINTWISE_SUB, masked, max, l.scores);
    graph_node e = graph_pointwise(g, CUDNN_POINTWISE_EXP, below, NULL, l.scores);
    graph_node sum = graph_between(g, CUDNN_DATA_FLOAT, l.rows);
    graph_reduce(g, CUDNN_REDUCE_TENSOR_ADD, e, sum);
    graph_node log_sum = graph_pointwise(g, CUDNN_POINTWISE_LOG, sum, NULL, l.rows);
    graph_pointwise_with(g, CUDNN_POINTWISE_ADD, CUDNN_DATA_FLOAT, -1, max, log_sum, NULL,
                         statistic);
    graph_node p = graph_between(g, CUDNN_DATA_BFLOAT16, l.scores);
    graph_pointwise_with(g, CUDNN_POINTWISE_DIV, CUDNN_DATA_FLOAT, -1, e, sum, NULL, p);
    graph_matmul(g, p, v, o);
}

/* a b into the memory of uid; summed over the query heads of each key head where they are more. */
static void graph_head_gradient(mr_sdpa_graph *g, const mr_sdpa_shape *shape,
                                const graph_layouts *l, graph_node a, graph_node b,
                                mr_sdpa_uid uid) {
    graph_node out = graph_bf16(g, uid, l->kv);
    if (shape->H == shape->HK) {
        graph_matmul(g, a, b, out);
        return;
    }
    graph_node each = graph_between(g, CUDNN_DATA_FLOAT, l->heads);
    graph_matmul(g, a, b, each);
    graph_reduce(g, CUDNN_REDUCE_TENSOR_ADD, each, out);
}

static void graph_query_gradient(mr_sdpa_graph *g, const mr_sdpa_shape *shape,
                                 const graph_layouts *l, graph_node ds, graph_node k) {
    graph_node dq = graph_bf16(g, MR_SDPA_DQ, l->q);
    if (shape->deterministic) {
        graph_matmul(g, ds, k, dq);
        return;
    }
    graph_node sum = graph_tensor(g, MR_SDPA_DQ_SUM, CUDNN_DATA_FLOAT, GRAPH_MEMORY, &l->heads);
    graph_matmul(g, ds, k, sum);
    graph_pointwise_with(g, CUDNN_POINTWISE_IDENTITY, CUDNN_DATA_FLOAT, -1, sum, NULL, NULL, dq);
}

/* The same dims read down the columns. */
static graph_layout graph_transposed(graph_layout l) {
    int64_t rows = l.strides[2];
    l.strides[2] = l.strides[3];
    l.strides[3] = rows;
    return l;
}

static void graph_backward(mr_sdpa_graph *g, const mr_sdpa_shape *shape) {
    graph_layouts l = graph_layouts_of(shape);
    graph_node q = graph_bf16(g, MR_SDPA_Q, l.q);
    graph_node k_transposed = graph_bf16(g, MR_SDPA_K, graph_swap_dims(l.kv));
    graph_node v_transposed = graph_bf16(g, MR_SDPA_V, graph_swap_dims(l.kv));
    graph_node o = graph_bf16(g, MR_SDPA_O, l.o);
    graph_node d_o = graph_bf16(g, MR_SDPA_DO, l.o);
    graph_node statistic =
        graph_tensor(g, MR_SDPA_STATISTIC, CUDNN_DATA_FLOAT, GRAPH_MEMORY, &l.rows);
    graph_node scale = graph_scalar(g, MR_SDPA_SCALE);
    graph_node lowest = graph_scalar(g, MR_SDPA_LOWEST);
    graph_node one = graph_scalar(g, MR_SDPA_ONE);

    graph_node products = graph_pointwise(g, CUDNN_POINTWISE_MUL, d_o, o, l.heads);
    graph_node sums = graph_between(g, CUDNN_DATA_FLOAT, l.rows);
    graph_reduce(g, CUDNN_REDUCE_TENSOR_ADD, products, sums);
    graph_node d = graph_pointwise(g, CUDNN_POINTWISE_MUL, sums, one, l.rows);

    graph_node s = graph_between(g, CUDNN_DATA_FLOAT, l.scores);
    graph_matmul(g, q, k_transposed, s);
    graph_node scaled = graph_pointwise(g, CUDNN_POINTWISE_MUL, s, scale, l.scores);
    graph_node below = graph_pointwise(g, CUDNN_POINTWISE_SUB, scaled, statistic, l.scores);
    graph_node masked = graph_mask(g, below, lowest, l.scores);
    graph_node p = graph_pointwise(g, CUDNN_POINTWISE_EXP, masked, NULL, l.scores);
    graph_node p_transposed = graph_reshape(g, p, graph_transposed(l.scores));
    graph_head_gradient(g, shape, &l, p_transposed, d_o, MR_SDPA_DV);

    graph_node dp = graph_between(g, CUDNN_DATA_FLOAT, l.scores);
    graph_matmul(g, d_o, v_transposed, dp);
    graph_node centred = graph_pointwise(g, CUDNN_POINTWISE_SUB, dp, d, l.scores);
    graph_node weighted = graph_pointwise(g, CUDNN_POINTWISE_MUL, centred, p, l.scores);
    graph_node ds = graph_between(g, CUDNN_DATA_BFLOAT16, l.scores);
    graph_pointwise_with(g, CUDNN_POINTWISE_MUL, CUDNN_DATA_FLOAT, -1, weighted, scale, NULL, ds);
    graph_node ds_transposed = graph_reshape(g, ds, graph_transposed(l.scores));
    graph_head_gradient(g, shape, &l, ds_transposed, q, MR_SDPA_DK);
    graph_node k = graph_reshape(g, k_transposed, l.kv);
    graph_query_gradient(g, shape, &l, ds, k);
}

static void graph_close(mr_sdpa_graph *g, struct cudnnContext *handle) {
    g->graph = graph_new(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    graph_set(g, g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
              g->operation_count, g->operations);
    if (handle != NULL)
        graph_set(g, g->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    graph_finish(g, g->graph, "graph of operations");
}

mr_status mr_sdpa_graph_create(struct cudnnContext *handle, const mr_sdpa_shape *shape,
                               mr_sdpa_graph **out_graph) {
    MR_ASSERT(shape->HK > 0 && shape->H % shape->HK == 0);
    mr_sdpa_graph *g = mr_alloc(sizeof(*g));
    if (g == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an attention graph");
    g->next_uid = GRAPH_VIRTUAL_UID;
    if (shape->backward)
        graph_backward(g, shape);
    else
        graph_forward(g, shape);
    graph_close(g, handle);
    if (g->failure != CUDNN_STATUS_SUCCESS) {
        mr_status status = MR_ERROR(INTERNAL, "cuDNN refuses %s (%s)", g->what,
                                    cudnnGetErrorString(g->failure));
        mr_sdpa_graph_destroy(g);
        return status;
    }
    *out_graph = g;
    return MR_OK;
}

void mr_sdpa_graph_destroy(mr_sdpa_graph *graph) {
    if (graph == NULL)
        return;
    for (int i = graph->owned_count; i > 0; i--)
        (void)cudnnBackendDestroyDescriptor(graph->owned[i - 1]); /* nothing else can be done */
    mr_free(graph);
}

void *mr_sdpa_graph_descriptor(const mr_sdpa_graph *graph) {
    return graph->graph;
}

int64_t mr_sdpa_graph_operations(const mr_sdpa_graph *graph) {
    return graph->operation_count;
}
