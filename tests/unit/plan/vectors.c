/* SPDX-License-Identifier: Apache-2.0 */
/* Bazel starts a test in the root of its runfiles, so the files lie at their path in the tree. */
#include "tests/unit/plan/vectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

json_t *vectors_open(const char *file, const char *array, json_t **out_file) {
    char path[256];
    (void)snprintf(path, sizeof(path), "tests/vectors/%s", file); /* short names of ours */
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    if (root == NULL)
        fail_msg("%s: line %d: %s", path, error.line, error.text);
    *out_file = root;
    json_t *value = vectors_get(root, array);
    assert_true(json_is_array(value));
    assert_true(json_array_size(value) > 0);
    return value;
}

json_t *vectors_get(json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);
    if (value == NULL)
        fail_msg("the vector has no key '%s'", key);
    return value;
}

size_t vectors_size(json_t *object, const char *key) {
    json_t *value = vectors_get(object, key);
    assert_true(json_is_integer(value));
    return (size_t)json_integer_value(value);
}

size_t vectors_sizes(json_t *array, size_t *out, size_t room) {
    assert_true(json_is_array(array));
    size_t count = json_array_size(array);
    assert_true(count <= room);
    for (size_t i = 0; i < count; i++)
        out[i] = (size_t)json_integer_value(json_array_get(array, i));
    return count;
}

void vectors_assert_ranks(json_t *array, const uint32_t *ranks, size_t count) {
    assert_true(json_is_array(array));
    assert_int_equal(json_array_size(array), count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(json_integer_value(json_array_get(array, i)), ranks[i]);
}
