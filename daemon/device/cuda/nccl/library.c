/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cuda/nccl/library.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/device/cuda/nccl/calls.h"

#define LIBRARY_TEXT_OF(x) #x
#define LIBRARY_TEXT(x) LIBRARY_TEXT_OF(x)

static const char *const cuda_names[] = {
#if CUDART_VERSION >= 13000
    "libcudart.so.13",
#else
    "libcudart.so.12",
#endif
    "libcudart.so",
};
static const char *const nccl_names[] = {"libnccl.so." LIBRARY_TEXT(NCCL_MAJOR), "libnccl.so"};

struct mr_nccl_library {
    void *cuda;
    void *nccl;
    mr_nccl_calls calls;
};

static mr_status library_load(const char *path, const char *const names[2], void **out_handle) {
    void *handle = NULL;
    if (path != NULL)
        handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; path == NULL && handle == NULL && i < 2; i++)
        handle = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        const char *why = dlerror();
        return MR_ERROR(UNAVAILABLE, "%s cannot be opened: %.150s", path != NULL ? path : names[0],
                        why != NULL ? why : "no reason given");
    }
    *out_handle = handle;
    return MR_OK;
}

/* A pointer to data may hold one to a function on every system that has dlsym (POSIX). */
static mr_status library_find(void *handle, const char *name, void *out_pointer) {
    void *found = dlsym(handle, name);
    if (found == NULL)
        return MR_ERROR(UNAVAILABLE, "the library has no function %s", name);
    memcpy(out_pointer, &found, sizeof(found));
    return MR_OK;
}

static mr_status library_fill(mr_nccl_library *library) {
    mr_nccl_calls *calls = &library->calls;
#define LIBRARY_FIND_CUDA(name) MR_TRY(library_find(library->cuda, #name, &calls->name));
#define LIBRARY_FIND_NCCL(name) MR_TRY(library_find(library->nccl, #name, &calls->name));
    MR_CUDA_CALLS(LIBRARY_FIND_CUDA)
    MR_NCCL_CALLS(LIBRARY_FIND_NCCL)
#undef LIBRARY_FIND_CUDA
#undef LIBRARY_FIND_NCCL
    int version = 0;
    if (calls->ncclGetVersion(&version) != ncclSuccess || version < NCCL_VERSION(2, 22, 0) ||
        version / 10000 != NCCL_MAJOR)
        return MR_ERROR(UNAVAILABLE, "NCCL is of version %d; this build wants %d to %d", version,
                        NCCL_VERSION(2, 22, 0), NCCL_MAJOR * 10000 + 9999);
    return MR_OK;
}

mr_status mr_nccl_library_open(const char *cuda_path, const char *nccl_path,
                               mr_nccl_library **out_library) {
    mr_nccl_library *library = mr_alloc(sizeof(*library));
    if (library == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for NCCL's functions");
    mr_status status = library_load(cuda_path, cuda_names, &library->cuda);
    if (mr_status_is_ok(status))
        status = library_load(nccl_path, nccl_names, &library->nccl);
    if (mr_status_is_ok(status))
        status = library_fill(library);
    if (!mr_status_is_ok(status)) {
        mr_nccl_library_close(library);
        return status;
    }
    *out_library = library;
    return MR_OK;
}

const mr_nccl_calls *mr_nccl_library_calls(const mr_nccl_library *library) {
    return &library->calls;
}

void mr_nccl_library_close(mr_nccl_library *library) {
    if (library == NULL)
        return;
    if (library->nccl != NULL)
        (void)dlclose(library->nccl); /* nothing to be done where it fails */
    if (library->cuda != NULL)
        (void)dlclose(library->cuda);
    mr_free(library);
}
