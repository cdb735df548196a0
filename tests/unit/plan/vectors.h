/* SPDX-License-Identifier: Apache-2.0 */
/* vectors.h: reading the vector files of tests/vectors; any flaw in them ends the test.
 * Owner: tests. */
#ifndef MR_TESTS_UNIT_PLAN_VECTORS_H
#define MR_TESTS_UNIT_PLAN_VECTORS_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

/* One array of a vector file, as "partition.json" and "uniform". Owner frees the file with
 * json_decref(*out_file). */
json_t *vectors_open(const char *file, const char *array, json_t **out_file);
/* A member that must exist. */
json_t *vectors_get(json_t *object, const char *key);
size_t vectors_size(json_t *object, const char *key);
/* An array of sizes into out (room for room); returns how many. */
size_t vectors_sizes(json_t *array, size_t *out, size_t room);
/* Does an array of integers equal these ranks? */
void vectors_assert_ranks(json_t *array, const uint32_t *ranks, size_t count);

#endif
