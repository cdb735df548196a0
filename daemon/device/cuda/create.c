/* SPDX-License-Identifier: Apache-2.0 */
/* create.c: making a CUDA device, its vtable, and the errors that it keeps. */
#include <math.h>

#include <cuda_runtime_api.h>

#include "daemon/base/alloc.h"
#include "daemon/device/cuda/device_cuda.h"
#include "daemon/device/cuda/driver.h"
#include "daemon/device/cuda/entry.h"
#include "daemon/device/cuda/fault.h"

/* Older cards are refused: the library has code for 8.0 and 9.0, and PTX of 9.0 for what is newer.
 * cudaDevAttrComputeCapabilityMajor. */
enum { CREATE_CAPABILITY_MIN = 8 };

mr_device_cuda *mr_device_cuda_of(mr_device *device) {
    return (mr_device_cuda *)device;
}

void mr_device_cuda_latch(mr_device_cuda *cuda, mr_status status) {
    if (mr_status_is_ok(cuda->error))
        cuda->error = status;
}

bool mr_device_cuda_passed(mr_device_cuda *cuda, int code, const char *what) {
    if (code == cudaSuccess)
        return true;
    mr_device_cuda_latch(cuda, mr_cuda_fault_status(code, what));
    return false;
}

void *mr_device_cuda_workspace(mr_device_cuda *cuda, size_t bytes) {
    if (bytes > cuda->workspace_bytes) {
        (void)cudaFree(cuda->workspace); /* waits for what uses it */
        cuda->workspace = NULL;
        cuda->workspace_bytes = 0;
        if (!mr_device_cuda_passed(cuda, cudaMalloc(&cuda->workspace, bytes),
                                   "workspace of an operation"))
            return NULL;
        cuda->workspace_bytes = bytes;
    }
    return cuda->workspace;
}

mr_cuda_array mr_device_cuda_array(const mr_tensor *tensor, mr_dtype absent) {
    if (tensor == NULL)
        return (mr_cuda_array){.dtype = absent};
    return (mr_cuda_array){.data = tensor->data, .dtype = tensor->shape.dtype};
}

float *mr_device_cuda_floats(const mr_tensor *tensor) {
    if (tensor == NULL)
        return NULL;
    MR_ASSERT(tensor->shape.dtype == MR_DTYPE_F32);
    return tensor->data;
}

size_t mr_device_cuda_count(const mr_tensor *tensor) {
    size_t count = 0;
    bool fits = mr_shape_elements(&tensor->shape, &count);
    MR_ASSERT(fits);
    return count;
}

size_t mr_device_cuda_width(const mr_tensor *tensor) {
    return tensor->shape.dim_count == 0 ? 1 : tensor->shape.dims[tensor->shape.dim_count - 1];
}

size_t mr_device_cuda_rows(const mr_tensor *tensor) {
    size_t width = mr_device_cuda_width(tensor);
    return width == 0 ? 0 : mr_device_cuda_count(tensor) / width;
}

mr_cuda_mask mr_device_cuda_mask(const mr_dropout *dropout) {
    if (dropout == NULL || !(dropout->probability > 0.0f))
        return (mr_cuda_mask){.needed = false};
    MR_ASSERT(dropout->run == 0); /* a stage refuses a model axis on this device */
    double bound = ceil((double)dropout->probability * 4294967296.0);
    return (mr_cuda_mask){
        .k = {dropout->key.k[0], dropout->key.k[1]},
        .stream = {dropout->key.stream[0], dropout->key.stream[1]},
        .threshold = bound >= 4294967295.0 ? 0xffffffffu : (uint32_t)bound,
        .factor = 1.0f / (1.0f - dropout->probability),
        .needed = true,
    };
}

/* What a kernel has noted of tokens and labels, in the CPU's words. */
static mr_status create_read_bad(mr_device_cuda *cuda) {
    mr_cuda_bad_index bad = {0};
    MR_TRY(mr_cuda_fault_status(cudaMemcpy(&bad, cuda->bad, sizeof(bad), cudaMemcpyDeviceToHost),
                                "reading errors"));
    if (bad.kind == MR_CUDA_TOKEN)
        return MR_ERROR(INVALID_ARGUMENT, "token at position %zu is %d; it must be in [0, %zu)",
                        (size_t)bad.position, bad.value, (size_t)bad.bound);
    if (bad.kind == MR_CUDA_LABEL)
        return MR_ERROR(INVALID_ARGUMENT,
                        "label at position %zu is %d; it must be -1 or in [0, %zu)",
                        (size_t)bad.position, bad.value, (size_t)bad.bound);
    return MR_OK;
}

static mr_status create_check(mr_device *device) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    if (!mr_status_is_ok(cuda->error))
        return cuda->error;
    if (mr_device_cuda_passed(cuda, cudaStreamSynchronize(cuda->stream), "work on the card"))
        mr_device_cuda_latch(cuda, create_read_bad(cuda));
    return cuda->error;
}

static void create_destroy(mr_device *device) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    if (cuda->stream != NULL)
        (void)cudaStreamSynchronize(cuda->stream); /* its errors were check's to tell */
    mr_sdpa_destroy(cuda->sdpa);
    mr_products_destroy(cuda->products);
    mr_device_cuda_slots_destroy(cuda);
    (void)cudaFree(cuda->workspace);
    (void)cudaFree(cuda->bad);
    if (cuda->stream != NULL)
        (void)cudaStreamDestroy(cuda->stream);
    mr_free(cuda);
}

static void *create_stream(mr_device *device, int *out_number) {
    *out_number = mr_device_cuda_of(device)->number;
    return mr_device_cuda_of(device)->stream;
}

static const mr_device_ops cuda_ops = {
    .name = "cuda",
    .host_memory = false,
    .destroy = create_destroy,
    .check = create_check,
    .stream = create_stream,
    .memory_create = mr_device_cuda_memory_create,
    .memory_destroy = mr_device_cuda_memory_destroy,
    .copy_in = mr_device_cuda_copy_in,
    .copy_out = mr_device_cuda_copy_out,
    .copy = mr_device_cuda_copy,
    .zero = mr_device_cuda_zero,
    .linear_forward = mr_device_cuda_linear_forward,
    .linear_backward_input = mr_device_cuda_linear_backward_input,
    .linear_backward_weight = mr_device_cuda_linear_backward_weight,
    .embedding_forward = mr_device_cuda_embedding_forward,
    .embedding_backward = mr_device_cuda_embedding_backward,
    .layernorm_forward = mr_device_cuda_layernorm_forward,
    .residual_layernorm_forward = mr_device_cuda_residual_layernorm_forward,
    .layernorm_backward_input = mr_device_cuda_layernorm_backward_input,
    .layernorm_backward_weight = mr_device_cuda_layernorm_backward_weight,
    .attention_forward = mr_device_cuda_attention_forward,
    .attention_backward = mr_device_cuda_attention_backward,
    .pointwise_forward = mr_device_cuda_pointwise_forward,
    .pointwise_backward = mr_device_cuda_pointwise_backward,
    .dropout = mr_device_cuda_dropout,
    .add = mr_device_cuda_add,
    .cross_entropy = mr_device_cuda_cross_entropy,
    .mean_squared_error = mr_device_cuda_mean_squared_error,
    .sum_of_squares = mr_device_cuda_sum_of_squares,
    .accumulate = mr_device_cuda_accumulate,
    .cast = mr_device_cuda_cast,
    .adamw = mr_device_cuda_adamw,
};

static mr_status create_card(mr_device_cuda *cuda, const mr_device_options *options) {
    struct cudaDeviceProp card;
    MR_TRY(mr_cuda_fault_status(cudaSetDevice(cuda->number), "choosing the card"));
    MR_TRY(mr_cuda_fault_status(cudaGetDeviceProperties(&card, cuda->number), "asking the card"));
    if (card.major < CREATE_CAPABILITY_MIN)
        return MR_ERROR(UNAVAILABLE, "cuda:%d is a %.60s of capability %d.%d; it must be %d.0 or "
                                     "newer",
                        cuda->number, card.name, card.major, card.minor, CREATE_CAPABILITY_MIN);
    MR_TRY(mr_cuda_fault_status(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking),
                                "a stream"));
    MR_TRY(mr_cuda_fault_status(cudaMalloc((void **)&cuda->bad, sizeof(*cuda->bad)), "memory"));
    MR_TRY(mr_cuda_fault_status(cudaMemsetAsync(cuda->bad, 0, sizeof(*cuda->bad), cuda->stream),
                                "memory"));
    MR_TRY(mr_device_cuda_slots_create(cuda));
    mr_products_options products = {.stream = cuda->stream,
                                    .fast = cuda->fast,
                                    .cache_folder = options->cache_folder,
                                    .device_name = card.name};
    MR_TRY(mr_products_create(&products, &cuda->products));
    return mr_sdpa_create(cuda->stream, &cuda->sdpa);
}

static bool create_contract_is_ours(const mr_cuda_contract *contract) {
    const mr_cuda_contract ours = MR_CUDA_CONTRACT_HERE;
    return contract->number == ours.number && contract->ops_bytes == ours.ops_bytes &&
           contract->options_bytes == ours.options_bytes &&
           contract->tensor_bytes == ours.tensor_bytes;
}

/* The library's only symbol (mr_cuda_entry). */
mr_status mr_device_cuda_entry(const mr_cuda_contract *contract, const mr_device_options *options,
                               unsigned number, mr_device **out_device);
mr_status mr_device_cuda_entry(const mr_cuda_contract *contract, const mr_device_options *options,
                               unsigned number, mr_device **out_device) {
    if (!create_contract_is_ours(contract))
        return MR_ERROR(FAILED_PRECONDITION,
                        "device %s: %s is of another build than the program; install both from "
                        "one archive",
                        options->kind, MR_CUDA_LIBRARY);
    mr_status status = mr_cuda_driver_check(number);
    if (!mr_status_is_ok(status))
        return mr_status_prefix(status, "device %s", options->kind);
    mr_device_cuda *cuda = mr_alloc(sizeof(*cuda));
    if (cuda == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a CUDA device");
    cuda->base.ops = &cuda_ops;
    cuda->number = (int)number;
    cuda->fast = options->fast;
    status = create_card(cuda, options);
    if (!mr_status_is_ok(status)) {
        create_destroy(&cuda->base);
        return mr_status_prefix(status, "device %s", options->kind);
    }
    *out_device = &cuda->base;
    return MR_OK;
}
