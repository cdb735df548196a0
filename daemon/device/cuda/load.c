/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cuda/load.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/device/cuda/entry.h"

enum { LOAD_PATH_BYTES = 4096 };

/* The program's folder, without the last slash. */
static mr_status load_folder(char out_folder[LOAD_PATH_BYTES]) {
    ssize_t length = readlink("/proc/self/exe", out_folder, LOAD_PATH_BYTES - 1);
    if (length <= 0 || length >= LOAD_PATH_BYTES - 1)
        return MR_ERROR(UNAVAILABLE, "the program's own folder is not to be found: %s",
                        strerror(errno));
    out_folder[length] = '\0';
    *strrchr(out_folder, '/') = '\0';
    return MR_OK;
}

mr_status mr_device_cuda_create_from(const char *path, const mr_device_options *options,
                                     unsigned number, mr_device **out_device) {
    const mr_cuda_contract contract = MR_CUDA_CONTRACT_HERE;
    union {
        void *object;
        mr_cuda_entry call;
    } entry;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return MR_ERROR(UNAVAILABLE, "device %s: the CUDA library does not load: %s", options->kind,
                        dlerror());
    entry.object = dlsym(library, MR_CUDA_ENTRY);
    if (entry.object == NULL)
        return MR_ERROR(FAILED_PRECONDITION, "device %s: %s has no %s: it is not ours",
                        options->kind, path, MR_CUDA_ENTRY);
    return entry.call(&contract, options, number, out_device);
}

/* Room for a folder, one of the places below and the library's name. */
enum { LOAD_LIBRARY_BYTES = LOAD_PATH_BYTES + sizeof("/../lib/" MR_CUDA_LIBRARY) };

static mr_status load_find(char out_path[LOAD_LIBRARY_BYTES]) {
    static const char *const places[] = {"", "/../lib"};
    char folder[LOAD_PATH_BYTES];
    MR_TRY(load_folder(folder));
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(out_path, LOAD_LIBRARY_BYTES, "%s%s/%s", folder, places[i], MR_CUDA_LIBRARY);
        if (access(out_path, F_OK) == 0)
            return MR_OK;
    }
    return MR_ERROR(UNAVAILABLE,
                    "%s is neither beside the program nor in ../lib (%.120s); build it "
                    "with --config=cuda, or use --device cpu",
                    MR_CUDA_LIBRARY, folder);
}

mr_status mr_device_cuda_create(const mr_device_options *options, unsigned number,
                                mr_device **out_device) {
    char path[LOAD_LIBRARY_BYTES];
    mr_status status = load_find(path);
    if (!mr_status_is_ok(status))
        return mr_status_prefix(status, "device %s", options->kind);
    return mr_device_cuda_create_from(path, options, number, out_device);
}

mr_status mr_device_cuda_present(void) {
    char path[LOAD_LIBRARY_BYTES];
    return load_find(path);
}
