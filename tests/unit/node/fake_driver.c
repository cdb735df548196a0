/* SPDX-License-Identifier: Apache-2.0 */
/* A stand-in for the CUDA driver's library, for tests that count cards: three of them, or, where
 * FAKE_DRIVER_HANGS is set, a driver that never answers. */
#include <stdlib.h>
#include <unistd.h>

int cuInit(unsigned flags);
int cuDeviceGetCount(int *out_count);
int cuGetErrorName(int result, const char **out_name);
int cuGetErrorString(int result, const char **out_text);

int cuInit(unsigned flags) {
    (void)flags;
    while (getenv("FAKE_DRIVER_HANGS") != NULL)
        (void)pause();
    return 0;
}

int cuDeviceGetCount(int *out_count) {
    *out_count = 3;
    return 0;
}

int cuGetErrorName(int result, const char **out_name) {
    (void)result;
    *out_name = "CUDA_SUCCESS";
    return 0;
}

int cuGetErrorString(int result, const char **out_text) {
    (void)result;
    *out_text = "no error";
    return 0;
}
