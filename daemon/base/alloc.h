/* SPDX-License-Identifier: Apache-2.0 */
/* alloc.h: the only way to the heap: zeroed, counted, able to fail on purpose in tests; and sizes
 * computed with overflow checks.
 * Owner: base. Thread: any.
 * Not here: step memory, which lives in arenas (arena.h) sized by the plan. */
#ifndef MR_BASE_ALLOC_H
#define MR_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory of at least one byte; NULL when there is none. Owner frees with mr_free. */
void *mr_alloc(size_t bytes);
/* count elements of size bytes each, overflow checked; zeroed. NULL when impossible. */
void *mr_alloc_array(size_t count, size_t size);
/* Grows or shrinks an array; new elements are zero. On NULL the old one stays valid. */
void *mr_realloc_array(void *memory, size_t old_count, size_t new_count, size_t size);
/* A copy of a string; NULL when there is no memory or text is NULL. */
char *mr_strdup(const char *text);
/* Frees what mr_alloc gave; NULL is fine. */
void mr_free(void *memory);

/* Number of allocations that the calling thread has asked for since it started, failed ones too.
 * Per thread, because a step allocates nothing on EXEC while LOOP and others go on as they must. */
uint64_t mr_alloc_count(void);
/* Test seam: the n-th allocation from now fails (1 is the next one), 0 switches it off. */
void mr_alloc_fail_at(uint64_t n);

/* *out = a * b or a + b; false on overflow (*out untouched). */
bool mr_size_mul(size_t a, size_t b, size_t *out);
bool mr_size_add(size_t a, size_t b, size_t *out);

#endif
