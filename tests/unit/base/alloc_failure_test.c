/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: heap memory is zeroed, counted per thread and fails on purpose exactly where asked; sizes
 * that overflow are refused. Method: each call directly; the count is compared with that of a
 * second thread that allocates at the same time. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"

static void test_memory_is_zeroed_and_of_at_least_one_byte(void **state) {
    (void)state;
    static const unsigned char zero[300];
    unsigned char *dirty = mr_alloc(sizeof(zero));
    assert_non_null(dirty);
    memset(dirty, 0xff, sizeof(zero));
    mr_free(dirty);
    unsigned char *memory = mr_alloc(sizeof(zero));
    assert_memory_equal(memory, zero, sizeof(zero));
    mr_free(memory);
    memory = mr_alloc(0);
    assert_non_null(memory);
    memory[0] = 1;
    mr_free(memory);
    mr_free(NULL);
}

static void test_grown_array_keeps_the_old_and_zeroes_the_new(void **state) {
    (void)state;
    uint32_t *array = mr_alloc_array(2, sizeof(*array));
    assert_non_null(array);
    array[0] = 7;
    array[1] = 8;
    array = mr_realloc_array(array, 2, 1000, sizeof(*array));
    assert_non_null(array);
    assert_int_equal(array[0], 7);
    assert_int_equal(array[1], 8);
    for (size_t i = 2; i < 1000; i++)
        assert_int_equal(array[i], 0);
    array = mr_realloc_array(array, 1000, 1, sizeof(*array));
    assert_non_null(array);
    assert_int_equal(array[0], 7);
    array = mr_realloc_array(array, 1, 0, sizeof(*array));
    assert_non_null(array);
    mr_free(array);
}

static void test_impossible_sizes_are_refused(void **state) {
    (void)state;
    size_t out = 5;
    assert_null(mr_alloc_array(SIZE_MAX / 2, 3));
    assert_null(mr_realloc_array(NULL, 0, SIZE_MAX / 2, 3));
    assert_false(mr_size_mul(SIZE_MAX / 2 + 1, 2, &out));
    assert_false(mr_size_add(SIZE_MAX, 1, &out));
    assert_int_equal(out, 5);
    assert_true(mr_size_mul(SIZE_MAX / 2, 2, &out));
    assert_true(out == SIZE_MAX - 1);
    assert_true(mr_size_add(SIZE_MAX - 1, 1, &out));
    assert_true(out == SIZE_MAX);
    assert_true(mr_size_mul(0, SIZE_MAX, &out));
    assert_int_equal(out, 0);
}

static void test_copied_string_is_equal_and_of_null_there_is_none(void **state) {
    (void)state;
    char *copy = mr_strdup("mill race");
    assert_string_equal(copy, "mill race");
    mr_free(copy);
    copy = mr_strdup("");
    assert_string_equal(copy, "");
    mr_free(copy);
    uint64_t before = mr_alloc_count();
    assert_null(mr_strdup(NULL));
    assert_int_equal(mr_alloc_count(), before);
}

static void test_only_the_named_allocation_fails(void **state) {
    (void)state;
    mr_alloc_fail_at(3);
    void *first = mr_alloc(1);
    char *second = mr_strdup("x");
    assert_non_null(first);
    assert_non_null(second);
    assert_null(mr_alloc_array(4, 4));
    void *fourth = mr_alloc(1);
    assert_non_null(fourth);

    /* The old array stays valid when growing it fails. */
    mr_alloc_fail_at(1);
    assert_null(mr_realloc_array(second, 2, 200, 1));
    assert_string_equal(second, "x");

    mr_alloc_fail_at(1);
    mr_alloc_fail_at(0);
    void *fifth = mr_alloc(1);
    assert_non_null(fifth);
    mr_free(first);
    mr_free(second);
    mr_free(fourth);
    mr_free(fifth);
}

static void test_every_request_counts_and_a_refused_size_does_not(void **state) {
    (void)state;
    uint64_t before = mr_alloc_count();
    void *a = mr_alloc(10);
    char *b = mr_strdup("b");
    b = mr_realloc_array(b, 2, 30, 1);
    mr_alloc_fail_at(1);
    assert_null(mr_alloc(1));
    assert_int_equal(mr_alloc_count() - before, 4);
    assert_null(mr_alloc_array(SIZE_MAX, 2));
    assert_int_equal(mr_alloc_count() - before, 4);
    mr_free(a);
    mr_free(b);
    assert_int_equal(mr_alloc_count() - before, 4);
}

enum { OTHER_ALLOCATIONS = 100 };

/* Returns its own count as a pointer. */
static void *other_thread(void *context) {
    (void)context;
    for (int i = 0; i < OTHER_ALLOCATIONS; i++)
        mr_free(mr_alloc(8));
    return (void *)(uintptr_t)mr_alloc_count();
}

static void test_count_is_of_the_calling_thread_alone(void **state) {
    (void)state;
    pthread_t thread;
    void *counted = NULL;
    mr_free(mr_alloc(1));
    uint64_t before = mr_alloc_count();
    assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
    assert_int_equal(pthread_join(thread, &counted), 0);
    assert_int_equal((uintptr_t)counted, OTHER_ALLOCATIONS);
    assert_int_equal(mr_alloc_count(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_is_zeroed_and_of_at_least_one_byte),
        cmocka_unit_test(test_grown_array_keeps_the_old_and_zeroes_the_new),
        cmocka_unit_test(test_impossible_sizes_are_refused),
        cmocka_unit_test(test_copied_string_is_equal_and_of_null_there_is_none),
        cmocka_unit_test(test_only_the_named_allocation_fails),
        cmocka_unit_test(test_every_request_counts_and_a_refused_size_does_not),
        cmocka_unit_test(test_count_is_of_the_calling_thread_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
