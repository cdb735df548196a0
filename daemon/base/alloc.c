/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local uint64_t alloc_count;
static _Atomic uint64_t alloc_fail_in; /* allocations left until one fails; 0 is off */

static bool alloc_must_fail(void) {
    uint64_t left = atomic_load_explicit(&alloc_fail_in, memory_order_relaxed);
    if (left == 0)
        return false;
    atomic_store_explicit(&alloc_fail_in, left - 1, memory_order_relaxed);
    return left == 1;
}

void *mr_alloc(size_t bytes) {
    alloc_count++;
    if (alloc_must_fail())
        return NULL;
    return calloc(1, bytes == 0 ? 1 : bytes);
}

void *mr_alloc_array(size_t count, size_t size) {
    size_t bytes;
    return mr_size_mul(count, size, &bytes) ? mr_alloc(bytes) : NULL;
}

void *mr_realloc_array(void *memory, size_t old_count, size_t new_count, size_t size) {
    size_t bytes;
    if (!mr_size_mul(new_count, size, &bytes))
        return NULL;
    alloc_count++;
    if (alloc_must_fail())
        return NULL;
    char *grown = realloc(memory, bytes == 0 ? 1 : bytes);
    if (grown != NULL && new_count > old_count)
        memset(grown + old_count * size, 0, (new_count - old_count) * size);
    return grown;
}

char *mr_strdup(const char *text) {
    if (text == NULL)
        return NULL;
    size_t bytes = strlen(text) + 1;
    char *copy = mr_alloc(bytes);
    if (copy != NULL)
        memcpy(copy, text, bytes);
    return copy;
}

void mr_free(void *memory) {
    free(memory);
}

uint64_t mr_alloc_count(void) {
    return alloc_count;
}

void mr_alloc_fail_at(uint64_t n) {
    atomic_store_explicit(&alloc_fail_in, n, memory_order_relaxed);
}

bool mr_size_mul(size_t a, size_t b, size_t *out) {
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

bool mr_size_add(size_t a, size_t b, size_t *out) {
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}
