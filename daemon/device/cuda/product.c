/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cuda/product.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/device/cuda/choice.h"
#include "daemon/device/cuda/fault.h"

enum {
    PRODUCT_CANDIDATES = 8,
    PRODUCT_RUNS = 3, /* of a candidate that is timed; the shortest counts */
    PRODUCT_WORKSPACE_BYTES = 32 << 20
};

static_assert(sizeof(cublasLtMatmulAlgo_t) == MR_CHOICE_WORDS * sizeof(uint64_t),
              "a choice holds an algorithm");

typedef struct product_key {
    mr_product_shape shape;
    uint32_t alignment[4]; /* of A, B, C and the bias: bytes, a power of two up to 256 */
} product_key;

typedef struct product_plan {
    product_key key;
    uint64_t used; /* when, in uses of any plan; 0: empty */
    bool refused;  /* cuBLASLt has nothing */
    cublasLtMatmulDesc_t how;
    cublasLtMatrixLayout_t first; /* column-major: B comes first */
    cublasLtMatrixLayout_t second;
    cublasLtMatrixLayout_t out;
    cublasLtMatmulAlgo_t algorithm;
} product_plan;

struct mr_products {
    cublasLtHandle_t handle;
    mr_cuda_stream stream;
    bool fast;
    void *workspace;
    mr_choices *choices;
    uint64_t uses;
    product_plan plans[MR_DEVICE_PLANS_MAX];
};

static mr_status product_status(cublasStatus_t status, const char *what) {
    if (status == CUBLAS_STATUS_SUCCESS)
        return MR_OK;
    return MR_ERROR(INTERNAL, "cuBLASLt: %s gives %s (%d)", what, cublasLtGetStatusName(status),
                    (int)status);
}

static cudaDataType_t product_dtype(mr_dtype dtype) {
    return dtype == MR_DTYPE_BF16 ? CUDA_R_16BF : dtype == MR_DTYPE_F16 ? CUDA_R_16F : CUDA_R_32F;
}

static uint32_t product_alignment(const void *address) {
    uintptr_t bits = (uintptr_t)address | 256;
    return (uint32_t)(bits & -bits);
}

static void plan_clear(product_plan *plan) {
    if (plan->how != NULL)
        (void)cublasLtMatmulDescDestroy(plan->how);
    if (plan->first != NULL)
        (void)cublasLtMatrixLayoutDestroy(plan->first);
    if (plan->second != NULL)
        (void)cublasLtMatrixLayoutDestroy(plan->second);
    if (plan->out != NULL)
        (void)cublasLtMatrixLayoutDestroy(plan->out);
    memset(plan, 0, sizeof(*plan));
}

/* Row-major C = A B is column-major C' = B' A', and a stored matrix is its own transpose there. */
static mr_status plan_describe(product_plan *plan, const void *bias) {
    const mr_product_shape *s = &plan->key.shape;
    const cublasOperation_t first = s->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = s->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t bias_dtype = product_dtype(s->bias_dtype);
    cudaDataType_t operands = product_dtype(s->operands);
    uint64_t rows = s->b_transposed ? s->k : s->n;
    uint64_t columns = s->b_transposed ? s->n : s->k;
    MR_TRY(product_status(cublasLtMatmulDescCreate(&plan->how, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                          "matmul descriptor"));
    MR_TRY(product_status(cublasLtMatrixLayoutCreate(&plan->first, operands, rows, columns,
                                                     (int64_t)rows),
                          "layout of B"));
    rows = s->a_transposed ? s->m : s->k;
    columns = s->a_transposed ? s->k : s->m;
    MR_TRY(product_status(cublasLtMatrixLayoutCreate(&plan->second, operands, rows, columns,
                                                     (int64_t)rows),
                          "layout of A"));
    MR_TRY(product_status(cublasLtMatrixLayoutCreate(&plan->out, product_dtype(s->out), s->n, s->m,
                                                     (int64_t)s->n),
                          "layout of C"));
    cublasStatus_t status = cublasLtMatmulDescSetAttribute(
        plan->how, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof(first));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                                sizeof(second));
    if (status == CUBLAS_STATUS_SUCCESS && s->bias)
        status = cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                                sizeof(epilogue));
    if (status == CUBLAS_STATUS_SUCCESS && s->bias)
        status = cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                                                &bias_dtype, sizeof(bias_dtype));
    if (status == CUBLAS_STATUS_SUCCESS && s->bias)
        status = cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                                sizeof(bias));
    return product_status(status, "attributes of a product");
}

static cublasStatus_t plan_prefer(const product_plan *plan, cublasLtMatmulPreference_t prefer) {
    static const cublasLtMatmulPreferenceAttributes_t names[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    static const int of[] = {1, 0, 2, 2}; /* cuBLASLt's A is our B */
    const size_t bytes = PRODUCT_WORKSPACE_BYTES;
    cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(
        prefer, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes));
    for (int i = 0; i < 4 && status == CUBLAS_STATUS_SUCCESS; i++)
        status = cublasLtMatmulPreferenceSetAttribute(
            prefer, names[i], &plan->key.alignment[of[i]], sizeof(uint32_t));
    return status;
}

/* How many algorithms cuBLASLt proposes, best guess first. */
static mr_status plan_candidates(mr_products *products, product_plan *plan,
                                 cublasLtMatmulHeuristicResult_t *out, int *out_count) {
    cublasLtMatmulPreference_t prefer = NULL;
    MR_TRY(product_status(cublasLtMatmulPreferenceCreate(&prefer), "preference"));
    cublasStatus_t status = plan_prefer(plan, prefer);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(products->handle, plan->how, plan->first,
                                                plan->second, plan->out, plan->out, prefer,
                                                PRODUCT_CANDIDATES, out, out_count);
    (void)cublasLtMatmulPreferenceDestroy(prefer);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
        *out_count = 0; /* a plan that is refused, not an error of ours */
        return MR_OK;
    }
    return product_status(status, "heuristics");
}

/* d: c itself, or memory of its own while algorithms are timed. */
static cublasStatus_t plan_run(mr_products *products, product_plan *plan, const void *a,
                               const void *b, const void *c, void *d) {
    const float one = 1.0f;
    const float beta = plan->key.shape.accumulate ? 1.0f : 0.0f;
    return cublasLtMatmul(products->handle, plan->how, &one, b, plan->first, a, plan->second, &beta,
                          c, plan->out, d, plan->out, &plan->algorithm, products->workspace,
                          PRODUCT_WORKSPACE_BYTES, products->stream);
}

/* Milliseconds of the shortest of PRODUCT_RUNS; negative when it cannot be run or timed. */
static float plan_time(mr_products *products, product_plan *plan, const void *a, const void *b,
                       const void *c, void *scratch, cudaEvent_t before, cudaEvent_t after) {
    float best = -1.0f;
    for (int run = 0; run <= PRODUCT_RUNS; run++) { /* the first one warms up */
        float ms = 0.0f;
        if (cudaEventRecord(before, products->stream) != cudaSuccess ||
            plan_run(products, plan, a, b, c, scratch) != CUBLAS_STATUS_SUCCESS ||
            cudaEventRecord(after, products->stream) != cudaSuccess ||
            cudaEventSynchronize(after) != cudaSuccess ||
            cudaEventElapsedTime(&ms, before, after) != cudaSuccess)
            return -1.0f;
        if (run > 0 && (best < 0.0f || ms < best))
            best = ms;
    }
    return best;
}

/* The fastest candidate; the first where nothing can be timed. */
static void plan_measure(mr_products *products, product_plan *plan,
                         const cublasLtMatmulHeuristicResult_t *candidates, int count,
                         const void *a, const void *b, const void *c) {
    const mr_product_shape *s = &plan->key.shape;
    cudaEvent_t before = NULL;
    cudaEvent_t after = NULL;
    void *scratch = NULL;
    int best = 0;
    float best_ms = -1.0f;
    if (cudaMalloc(&scratch, s->m * s->n * mr_dtype_bytes(s->out)) == cudaSuccess &&
        cudaEventCreate(&before) == cudaSuccess && cudaEventCreate(&after) == cudaSuccess)
        for (int i = 0; i < count; i++) {
            plan->algorithm = candidates[i].algo;
            float ms = plan_time(products, plan, a, b, c, scratch, before, after);
            if (ms >= 0.0f && (best_ms < 0.0f || ms < best_ms)) {
                best = i;
                best_ms = ms;
            }
        }
    plan->algorithm = candidates[best].algo;
    if (before != NULL)
        (void)cudaEventDestroy(before);
    if (after != NULL)
        (void)cudaEventDestroy(after);
    (void)cudaFree(scratch);
    (void)cudaGetLastError(); /* no memory to measure in is no error of the product */
}

static void plan_text(const product_plan *plan, char out_key[MR_CHOICE_KEY_BYTES]) {
    const mr_product_shape *s = &plan->key.shape;
    const uint32_t *at = plan->key.alignment;
    snprintf(out_key, MR_CHOICE_KEY_BYTES, "%zux%zux%zu:%c%c%s%s:%s-%s:%u.%u.%u.%u", s->m, s->n,
             s->k, s->a_transposed ? 't' : 'n', s->b_transposed ? 't' : 'n', s->bias ? "b" : "",
             s->accumulate ? "+" : "", mr_dtype_name(s->operands), mr_dtype_name(s->out), at[0],
             at[1], at[2], at[3]);
}

/* A kept choice must still be one that the library takes. */
static bool plan_recall(mr_products *products, product_plan *plan, const char *key) {
    cublasLtMatmulHeuristicResult_t result;
    const uint64_t *words = mr_choices_find(products->choices, key);
    if (words == NULL)
        return false;
    memcpy(&plan->algorithm, words, sizeof(plan->algorithm));
    return cublasLtMatmulAlgoCheck(products->handle, plan->how, plan->first, plan->second,
                                   plan->out, plan->out, &plan->algorithm,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= PRODUCT_WORKSPACE_BYTES;
}

static mr_status plan_choose(mr_products *products, product_plan *plan, const void *a,
                             const void *b, const void *c) {
    char key[MR_CHOICE_KEY_BYTES];
    uint64_t words[MR_CHOICE_WORDS];
    cublasLtMatmulHeuristicResult_t candidates[PRODUCT_CANDIDATES];
    int count = 0;
    plan_text(plan, key);
    if (products->fast && plan_recall(products, plan, key))
        return MR_OK;
    MR_TRY(plan_candidates(products, plan, candidates, &count));
    plan->refused = count == 0;
    if (count == 0)
        return MR_OK;
    plan->algorithm = candidates[0].algo;
    if (!products->fast)
        return MR_OK;
    plan_measure(products, plan, candidates, count, a, b, c);
    memcpy(words, &plan->algorithm, sizeof(words));
    mr_status kept = mr_choices_put(products->choices, key, words);
    (void)kept; /* not kept: measured again at the next start */
    return MR_OK;
}

/* The plan's place: its own, or an empty one, or that of the plan unused for longest. */
static product_plan *plan_place(mr_products *products, const product_key *key) {
    product_plan *oldest = &products->plans[0];
    for (size_t i = 0; i < MR_DEVICE_PLANS_MAX; i++) {
        product_plan *plan = &products->plans[i];
        if (plan->used != 0 && memcmp(&plan->key, key, sizeof(*key)) == 0)
            return plan;
        if (plan->used < oldest->used)
            oldest = plan;
    }
    plan_clear(oldest);
    return oldest;
}

mr_status mr_products_run(mr_products *products, const mr_product_shape *shape, const void *a,
                          const void *b, const void *bias, void *c) {
    product_key key;
    memset(&key, 0, sizeof(key)); /* padding too: keys are compared as bytes */
    key.shape.m = shape->m;
    key.shape.n = shape->n;
    key.shape.k = shape->k;
    key.shape.a_transposed = shape->a_transposed;
    key.shape.b_transposed = shape->b_transposed;
    key.shape.bias = shape->bias;
    key.shape.accumulate = shape->accumulate;
    key.shape.operands = shape->operands;
    key.shape.out = shape->out;
    key.shape.bias_dtype = shape->bias ? shape->bias_dtype : MR_DTYPE_NONE;
    const void *addresses[4] = {a, b, c, bias};
    for (int i = 0; i < 4; i++)
        key.alignment[i] = product_alignment(addresses[i]);
    product_plan *plan = plan_place(products, &key);
    if (plan->used == 0) {
        plan->key = key;
        mr_status status = plan_describe(plan, bias);
        if (mr_status_is_ok(status))
            status = plan_choose(products, plan, a, b, c);
        if (!mr_status_is_ok(status)) {
            plan_clear(plan);
            return status;
        }
    }
    plan->used = ++products->uses;
    if (plan->refused)
        return MR_ERROR(UNIMPLEMENTED, "cuBLASLt has no algorithm for a product of this shape");
    if (shape->bias)
        MR_TRY(product_status(cublasLtMatmulDescSetAttribute(plan->how,
                                                             CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                             &bias, sizeof(bias)),
                              "bias"));
    return product_status(plan_run(products, plan, a, b, c, c), "a product");
}

/* "cublaslt-130100-nvidia-h200": the library's version and the card, as a file is named. */
static void products_file(const char *device_name, char *out_name, size_t bytes) {
    snprintf(out_name, bytes, "cublaslt-%zu-%s", cublasLtGetVersion(), device_name);
    for (char *at = out_name; *at != '\0'; at++)
        *at = isalnum((unsigned char)*at) ? (char)tolower((unsigned char)*at) : '-';
}

mr_status mr_products_create(const mr_products_options *options, mr_products **out_products) {
    char file[128];
    mr_status status = MR_OK;
    mr_products *products = mr_alloc(sizeof(*products));
    if (products == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for matrix products");
    products->stream = options->stream;
    products->fast = options->fast;
    products_file(options->device_name, file, sizeof(file));
    MR_TRY_GOTO(status, product_status(cublasLtCreate(&products->handle), "cublasLtCreate"), out);
    MR_TRY_GOTO(status,
                mr_cuda_fault_status(cudaMalloc(&products->workspace, PRODUCT_WORKSPACE_BYTES),
                                     "workspace of 32 MiB for products"),
                out);
    MR_TRY_GOTO(status,
                mr_choices_open(options->fast ? options->cache_folder : NULL, file,
                                &products->choices),
                out);
    *out_products = products;
out:
    if (!mr_status_is_ok(status))
        mr_products_destroy(products);
    return status;
}

void mr_products_destroy(mr_products *products) {
    if (products == NULL)
        return;
    for (size_t i = 0; i < MR_DEVICE_PLANS_MAX; i++)
        plan_clear(&products->plans[i]);
    mr_choices_close(products->choices);
    (void)cudaFree(products->workspace);
    if (products->handle != NULL)
        (void)cublasLtDestroy(products->handle);
    mr_free(products);
}
