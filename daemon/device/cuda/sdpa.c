/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cuda/sdpa.h"

#include <math.h>
#include <string.h>

#include <cudnn.h>

#include "daemon/base/alloc.h"

enum { SDPA_ENGINES_MAX = 8, SDPA_ALIGNMENT = 256 };

struct mr_sdpa_plan {
    mr_sdpa_shape shape;
    uint64_t used; /* when, in uses of any plan; 0: empty */
    mr_sdpa_graph *graph; /* NULL: no engine takes the shape */
    cudnnBackendDescriptor_t plan;
    cudnnBackendDescriptor_t variant; /* its memory, set anew for every run */
    size_t sum_bytes;                 /* of dQ, rounded up; 0: none */
    size_t own_bytes;                 /* cuDNN's workspace */
};

struct mr_sdpa {
    cudnnHandle_t handle;
    uint64_t uses;
    mr_sdpa_plan plans[MR_SDPA_PLANS_MAX];
};

/* One search for an engine: with a handle on a card, or with a description of one. */
typedef struct sdpa_search {
    cudnnHandle_t handle;                /* NULL: none */
    cudnnBackendDescriptor_t properties; /* NULL: the handle's card */
    cudnnBackendDescriptor_t heuristics;
    cudnnBackendDescriptor_t configs[SDPA_ENGINES_MAX];
    int64_t count;
} sdpa_search;

static mr_status sdpa_status(cudnnStatus_t status, const char *what) {
    char text[96] = "";
    if (status == CUDNN_STATUS_SUCCESS)
        return MR_OK;
    cudnnGetLastErrorString(text, sizeof(text));
    return MR_ERROR(INTERNAL, "cuDNN: %s gives %s: %s", what, cudnnGetErrorString(status), text);
}

static mr_status sdpa_set(cudnnBackendDescriptor_t node, cudnnBackendAttributeName_t name,
                          cudnnBackendAttributeType_t type, int64_t count, const void *value,
                          const char *what) {
    return sdpa_status(cudnnBackendSetAttribute(node, name, type, count, value), what);
}

static mr_status sdpa_new(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out_node,
                          const char *what) {
    return sdpa_status(cudnnBackendCreateDescriptor(type, out_node), what);
}

static void sdpa_delete(cudnnBackendDescriptor_t *node) {
    if (*node != NULL)
        (void)cudnnBackendDestroyDescriptor(*node); /* nothing else can be done */
    *node = NULL;
}

static void search_end(sdpa_search *search) {
    for (int i = 0; i < SDPA_ENGINES_MAX; i++)
        sdpa_delete(&search->configs[i]);
    sdpa_delete(&search->heuristics);
}

/* Fills configs, best guess first. count 0: no engine. */
static mr_status search_begin(sdpa_search *search, const mr_sdpa_graph *graph) {
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    void *descriptor = mr_sdpa_graph_descriptor(graph);
    MR_TRY(sdpa_new(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &search->heuristics, "heuristics"));
    MR_TRY(sdpa_set(search->heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &descriptor, "graph of heuristics"));
    MR_TRY(sdpa_set(search->heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode,
                    "mode of heuristics"));
    if (search->properties != NULL)
        MR_TRY(sdpa_set(search->heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &search->properties,
                        "card of heuristics"));
    if (cudnnBackendFinalize(search->heuristics) != CUDNN_STATUS_SUCCESS)
        return MR_OK; /* it says "not supported" when no engine matches */
    for (int i = 0; i < SDPA_ENGINES_MAX; i++)
        MR_TRY(sdpa_new(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &search->configs[i], "engine"));
    return sdpa_status(cudnnBackendGetAttribute(search->heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                CUDNN_TYPE_BACKEND_DESCRIPTOR, SDPA_ENGINES_MAX,
                                                &search->count, search->configs),
                       "results of heuristics");
}

/* Compiles the kernel. Without a card, all but loading it. */
static cudnnStatus_t search_build(const sdpa_search *search, int i,
                                  cudnnBackendDescriptor_t plan) {
    cudnnStatus_t status = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                                    &search->configs[i]);
    if (status == CUDNN_STATUS_SUCCESS && search->handle != NULL)
        status = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
                                          CUDNN_TYPE_HANDLE, 1, &search->handle);
    if (status == CUDNN_STATUS_SUCCESS && search->properties != NULL)
        status = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                          CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &search->properties);
    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    status = cudnnBackendFinalize(plan);
    if (search->handle == NULL && status == CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER) {
        char text[256] = "";
        cudnnGetLastErrorString(text, sizeof(text));
        if (strstr(text, "(34)") != NULL)
            return CUDNN_STATUS_SUCCESS;
    }
    return status;
}

static mr_status search_workspace(const sdpa_search *search, int i, int64_t *out_bytes) {
    int64_t got = 0;
    return sdpa_status(cudnnBackendGetAttribute(search->configs[i],
                                                CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE,
                                                CUDNN_TYPE_INT64, 1, &got, out_bytes),
                       "workspace");
}

/* The first engine whose kernel compiles. out_index -1: none. */
static mr_status search_run(sdpa_search *search, const mr_sdpa_graph *graph,
                            cudnnBackendDescriptor_t *out_plan, int *out_index,
                            int64_t *out_bytes) {
    *out_index = -1;
    MR_TRY(search_begin(search, graph));
    for (int i = 0; i < (int)search->count; i++) {
        MR_TRY(sdpa_new(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, out_plan, "plan"));
        if (search_build(search, i, *out_plan) == CUDNN_STATUS_SUCCESS) {
            *out_index = i;
            return search_workspace(search, i, out_bytes);
        }
        sdpa_delete(out_plan);
    }
    return MR_OK;
}

static size_t sdpa_sum_bytes(const mr_sdpa_shape *s) {
    size_t bytes = (size_t)(s->B * s->H * s->T * s->D) * sizeof(float);
    if (!s->backward || s->deterministic)
        return 0;
    return (bytes + SDPA_ALIGNMENT - 1) / SDPA_ALIGNMENT * SDPA_ALIGNMENT;
}

static void plan_clear(mr_sdpa_plan *plan) {
    sdpa_delete(&plan->variant);
    sdpa_delete(&plan->plan);
    mr_sdpa_graph_destroy(plan->graph);
    memset(plan, 0, sizeof(*plan));
}

/* A graph that cuDNN does not even describe (a shape outside its bounds) is refused like one that
 * no engine takes. */
static mr_status plan_fill(mr_sdpa *sdpa, mr_sdpa_plan *plan) {
    sdpa_search search = {.handle = sdpa->handle};
    int index = -1;
    int64_t bytes = 0;
    mr_status status = mr_sdpa_graph_create(sdpa->handle, &plan->shape, &plan->graph);
    if (status.code == MR_CODE_INTERNAL)
        return MR_OK;
    MR_TRY(status);
    status = search_run(&search, plan->graph, &plan->plan, &index, &bytes);
    search_end(&search);
    MR_TRY(status);
    if (index < 0) {
        mr_sdpa_graph_destroy(plan->graph);
        plan->graph = NULL;
        return MR_OK;
    }
    plan->own_bytes = (size_t)bytes;
    plan->sum_bytes = sdpa_sum_bytes(&plan->shape);
    return sdpa_new(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &plan->variant, "memory of a plan");
}

static bool sdpa_shape_equal(const mr_sdpa_shape *a, const mr_sdpa_shape *b) {
    return a->B == b->B && a->H == b->H && a->HK == b->HK && a->T == b->T && a->D == b->D &&
           a->backward == b->backward && a->deterministic == b->deterministic;
}

mr_status mr_sdpa_plan_get(mr_sdpa *sdpa, const mr_sdpa_shape *shape,
                           const mr_sdpa_plan **out_plan) {
    mr_sdpa_plan *plan = NULL;
    mr_sdpa_plan *oldest = &sdpa->plans[0];
    for (int i = 0; i < MR_SDPA_PLANS_MAX && plan == NULL; i++) {
        mr_sdpa_plan *at = &sdpa->plans[i];
        if (at->used != 0 && sdpa_shape_equal(&at->shape, shape))
            plan = at;
        else if (at->used < oldest->used)
            oldest = at;
    }
    if (plan == NULL) {
        plan = oldest;
        plan_clear(plan);
        plan->shape = *shape;
        mr_status status = plan_fill(sdpa, plan);
        if (!mr_status_is_ok(status)) {
            plan_clear(plan);
            return status;
        }
    }
    plan->used = ++sdpa->uses;
    if (plan->graph == NULL)
        return MR_ERROR(UNIMPLEMENTED, "cuDNN has no engine for this attention");
    *out_plan = plan;
    return MR_OK;
}

size_t mr_sdpa_plan_workspace(const mr_sdpa_plan *plan) {
    return plan->sum_bytes + plan->own_bytes;
}

/* Are these of the graph? Forward has no gradients, and 1 is backward's. */
static bool sdpa_uid_is_used(const mr_sdpa_shape *shape, int uid) {
    switch (uid) {
    case MR_SDPA_DO:
    case MR_SDPA_DQ:
    case MR_SDPA_DK:
    case MR_SDPA_DV:
    case MR_SDPA_ONE: return shape->backward;
    case MR_SDPA_DQ_SUM: return shape->backward && !shape->deterministic;
    default: return true;
    }
}

mr_status mr_sdpa_run(mr_sdpa *sdpa, const mr_sdpa_plan *plan,
                      void *const memory[MR_SDPA_UID_COUNT], void *workspace) {
    float scale = 1.0f / sqrtf((float)plan->shape.D);
    float lowest = -INFINITY;
    float one = 1.0f;
    int64_t uids[MR_SDPA_UID_COUNT];
    void *places[MR_SDPA_UID_COUNT];
    int64_t count = 0;
    void *own = (unsigned char *)workspace + plan->sum_bytes;
    for (int uid = MR_SDPA_Q; uid < MR_SDPA_UID_COUNT; uid++) {
        if (!sdpa_uid_is_used(&plan->shape, uid))
            continue;
        uids[count] = uid;
        places[count++] = uid == MR_SDPA_SCALE    ? &scale
                          : uid == MR_SDPA_LOWEST ? &lowest
                          : uid == MR_SDPA_ONE    ? &one
                          : uid == MR_SDPA_DQ_SUM ? workspace
                                                  : memory[uid];
    }
    MR_TRY(sdpa_set(plan->variant, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count,
                    uids, "numbers of tensors"));
    MR_TRY(sdpa_set(plan->variant, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
                    count, places, "memory of tensors"));
    MR_TRY(sdpa_set(plan->variant, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &own,
                    "workspace of a plan"));
    MR_TRY(sdpa_status(cudnnBackendFinalize(plan->variant), "memory of a plan"));
    return sdpa_status(cudnnBackendExecute(sdpa->handle, plan->plan, plan->variant), "attention");
}

mr_status mr_sdpa_create(mr_cuda_stream stream, mr_sdpa **out_sdpa) {
    mr_sdpa *sdpa = mr_alloc(sizeof(*sdpa));
    if (sdpa == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for attention plans");
    cudnnStatus_t status = cudnnCreate(&sdpa->handle);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnSetStream(sdpa->handle, stream);
    if (status != CUDNN_STATUS_SUCCESS) {
        mr_sdpa_destroy(sdpa);
        return MR_ERROR(UNAVAILABLE, "cuDNN does not start: %s", cudnnGetErrorString(status));
    }
    *out_sdpa = sdpa;
    return MR_OK;
}

void mr_sdpa_destroy(mr_sdpa *sdpa) {
    if (sdpa == NULL)
        return;
    for (int i = 0; i < MR_SDPA_PLANS_MAX; i++)
        plan_clear(&sdpa->plans[i]);
    if (sdpa->handle != NULL)
        (void)cudnnDestroy(sdpa->handle); /* nothing else can be done */
    mr_free(sdpa);
}

static mr_status support_properties(const char *json, cudnnBackendDescriptor_t *out_node) {
    MR_TRY(sdpa_new(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, out_node, "card"));
    mr_status status =
        sdpa_set(*out_node, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                 (int64_t)strlen(json) + 1, json, "description of a card");
    if (mr_status_is_ok(status))
        status = sdpa_status(cudnnBackendFinalize(*out_node), "description of a card");
    if (!mr_status_is_ok(status))
        status.code = MR_CODE_INVALID_ARGUMENT;
    return status;
}

static mr_status support_engine(const sdpa_search *search, int index, int64_t *out_engine) {
    int64_t got = 0;
    cudnnBackendDescriptor_t engine = NULL;
    MR_TRY(sdpa_new(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine, "engine"));
    cudnnStatus_t status = cudnnBackendGetAttribute(search->configs[index],
                                                    CUDNN_ATTR_ENGINECFG_ENGINE,
                                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &got,
                                                    &engine);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
                                          CUDNN_TYPE_INT64, 1, &got, out_engine);
    sdpa_delete(&engine);
    return sdpa_status(status, "number of an engine");
}

mr_status mr_sdpa_support_query(const mr_sdpa_shape *shape, const char *properties,
                                mr_sdpa_support *out_support) {
    sdpa_search search = {0};
    cudnnBackendDescriptor_t plan = NULL;
    mr_sdpa_graph *graph = NULL;
    mr_sdpa_support support = {0};
    int index = -1;
    mr_status status = support_properties(properties, &search.properties);
    if (mr_status_is_ok(status))
        status = mr_sdpa_graph_create(NULL, shape, &graph);
    if (mr_status_is_ok(status))
        status = search_run(&search, graph, &plan, &index, &support.workspace_bytes);
    if (mr_status_is_ok(status) && index < 0)
        status = MR_ERROR(UNIMPLEMENTED, "cuDNN has no engine for this attention (%d proposed)",
                          (int)search.count);
    if (mr_status_is_ok(status))
        status = support_engine(&search, index, &support.engine);
    if (mr_status_is_ok(status)) {
        support.operations = mr_sdpa_graph_operations(graph);
        *out_support = support;
    }
    sdpa_delete(&plan);
    search_end(&search);
    mr_sdpa_graph_destroy(graph);
    sdpa_delete(&search.properties);
    return status;
}
