/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cuda/driver.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#define DRIVER_LIBRARY "libcuda.so.1"

/* The driver's functions that are called, by address; its results are ints here, so that no header
 * of the driver is needed. */
typedef struct driver_calls {
    int (*init)(unsigned flags);
    int (*device_count)(int *out_count);
    int (*error_name)(int result, const char **out_name);
    int (*error_text)(int result, const char **out_text);
} driver_calls;

static mr_status driver_find(void *library, const char *name, void *out_call) {
    void *found = dlsym(library, name);
    if (found == NULL)
        return MR_ERROR(UNAVAILABLE, "the CUDA driver (%s) has no %s", DRIVER_LIBRARY, name);
    memcpy(out_call, &found, sizeof(found)); /* an object's address becomes a function's */
    return MR_OK;
}

static mr_status driver_refuses(const driver_calls *calls, const char *call, int result) {
    const char *name = NULL;
    const char *text = NULL;
    (void)calls->error_name(result, &name); /* an unknown result leaves NULL */
    (void)calls->error_text(result, &text);
    return MR_ERROR(UNAVAILABLE, "the CUDA driver does not start: %s gives %s (%d): %s", call,
                    name == NULL ? "an unknown result" : name, result, text == NULL ? "?" : text);
}

mr_status mr_cuda_driver_count(unsigned *out_count) {
    driver_calls calls = {0};
    int count = 0;
    /* Never closed: the driver stays for the process once it has started. */
    void *library = dlopen(DRIVER_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return MR_ERROR(UNAVAILABLE, "there is no CUDA driver: %s", dlerror());
    MR_TRY(driver_find(library, "cuInit", &calls.init));
    MR_TRY(driver_find(library, "cuDeviceGetCount", &calls.device_count));
    MR_TRY(driver_find(library, "cuGetErrorName", &calls.error_name));
    MR_TRY(driver_find(library, "cuGetErrorString", &calls.error_text));
    int result = calls.init(0);
    if (result != 0)
        return driver_refuses(&calls, "cuInit", result);
    result = calls.device_count(&count);
    if (result != 0)
        return driver_refuses(&calls, "cuDeviceGetCount", result);
    *out_count = count > 0 ? (unsigned)count : 0;
    return MR_OK;
}

mr_status mr_cuda_driver_check(unsigned number) {
    unsigned count = 0;
    MR_TRY(mr_cuda_driver_count(&count));
    if (number >= count)
        return MR_ERROR(UNAVAILABLE, "cuda:%u is not here: %u CUDA devices are, numbered from 0",
                        number, count);
    return MR_OK;
}
