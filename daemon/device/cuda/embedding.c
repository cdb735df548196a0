/* SPDX-License-Identifier: Apache-2.0 */
/* embedding.c: rows looked up and rows added to. A token outside the vocabulary is noted on the
 * card, for check to tell; its row is zero and gets no gradient. */
#include "daemon/device/cuda/device_cuda.h"

typedef struct embedding_sizes {
    const int32_t *tokens;
    size_t B;
    size_t T;
    size_t C;
    size_t V;
} embedding_sizes;

static embedding_sizes embedding_begin(mr_device_cuda *cuda, const mr_tensor *tokens, size_t C,
                                       const mr_tensor *wte, const mr_tensor *wpe) {
    MR_ASSERT(tokens->shape.dtype == MR_DTYPE_I32);
    MR_ASSERT(tokens->shape.dim_count >= 1);
    embedding_sizes s = {.tokens = tokens->data,
                         .B = mr_device_cuda_rows(tokens),
                         .T = mr_device_cuda_width(tokens),
                         .C = C,
                         .V = wte == NULL ? INT32_MAX : mr_device_cuda_rows(wte)};
    MR_ASSERT(wte == NULL || mr_device_cuda_width(wte) == C);
    MR_ASSERT(wpe == NULL || mr_device_cuda_width(wpe) == s.C);
    MR_ASSERT(wpe == NULL || mr_device_cuda_rows(wpe) >= s.T);
    (void)mr_device_cuda_passed(cuda,
                                mr_cuda_indices_check(cuda->stream, s.tokens, s.B * s.T, 0, s.V,
                                                      MR_CUDA_TOKEN, cuda->bad),
                                "looking at tokens");
    return s;
}

void mr_device_cuda_embedding_forward(mr_device *device, const mr_tensor *tokens,
                                      const mr_tensor *wte, const mr_tensor *wpe, mr_tensor *y) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    embedding_sizes s = embedding_begin(cuda, tokens, mr_device_cuda_width(wte), wte, wpe);
    MR_ASSERT(mr_device_cuda_count(y) == s.B * s.T * s.C);
    (void)mr_device_cuda_passed(
        cuda,
        mr_cuda_embedding_forward(cuda->stream, s.tokens, mr_device_cuda_array(wte, MR_DTYPE_NONE),
                                  mr_device_cuda_array(wpe, wte->shape.dtype), s.B, s.T, s.C, s.V,
                                  mr_device_cuda_array(y, MR_DTYPE_NONE)),
        "embedding_forward");
}

void mr_device_cuda_embedding_backward(mr_device *device, const mr_tensor *tokens,
                                       const mr_tensor *dy, mr_tensor *dwte, mr_tensor *dwpe) {
    mr_device_cuda *cuda = mr_device_cuda_of(device);
    embedding_sizes s = embedding_begin(cuda, tokens, mr_device_cuda_width(dy), dwte, dwpe);
    MR_ASSERT(mr_device_cuda_count(dy) == s.B * s.T * s.C);
    size_t bytes = mr_cuda_embedding_bytes(s.B * s.T);
    void *workspace = mr_device_cuda_workspace(cuda, bytes);
    if (bytes == 0) {
        mr_device_cuda_latch(cuda, MR_ERROR(UNIMPLEMENTED,
                                            "embedding_backward of %zu positions; it must be in "
                                            "[1, 2^31)",
                                            s.B * s.T));
        return;
    }
    if (workspace == NULL)
        return;
    (void)mr_device_cuda_passed(
        cuda,
        mr_cuda_embedding_backward(cuda->stream, s.tokens, mr_device_cuda_array(dy, MR_DTYPE_NONE),
                                   s.B, s.T, s.C, s.V, workspace, bytes,
                                   mr_device_cuda_floats(dwte), mr_device_cuda_floats(dwpe)),
        "embedding_backward");
}
