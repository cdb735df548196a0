/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: an arena hands out aligned, zeroed, disjoint memory up to its size and no further, and goes
 * back to a mark. Method: small and huge-page arenas filled to the end; impossible sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/arena.h"

static void fill_and_check(size_t bytes) {
    mr_arena arena = {0};
    mr_status status = mr_arena_init(&arena, bytes);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_true(arena.mapped >= bytes);
    unsigned char *end = NULL;
    size_t taken = 0;
    for (size_t wish = 1; taken + mr_arena_rounded(wish) <= bytes; wish = wish * 3 + 1) {
        unsigned char *memory = mr_arena_take(&arena, wish);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % MR_ARENA_ALIGN, 0);
        assert_true(end == NULL || memory >= end);
        for (size_t i = 0; i < wish; i++)
            assert_int_equal(memory[i], 0);
        memset(memory, 0xa5, wish);
        end = memory + wish;
        taken += mr_arena_rounded(wish);
        assert_int_equal(mr_arena_mark(&arena), taken);
    }
    assert_non_null(mr_arena_take(&arena, bytes / MR_ARENA_ALIGN * MR_ARENA_ALIGN - taken));
    assert_null(mr_arena_take(&arena, arena.mapped - mr_arena_mark(&arena) + 1));
    mr_arena_deinit(&arena);
    assert_null(arena.base);
}

static void test_taken_memory_is_aligned_zeroed_and_disjoint(void **state) {
    (void)state;
    fill_and_check(MR_ARENA_ALIGN);
    fill_and_check(10000);
    fill_and_check((size_t)5 << 20);
}

static void test_full_arena_gives_null_and_stays_as_it_is(void **state) {
    (void)state;
    mr_arena arena;
    mr_status status = mr_arena_init(&arena, 4096);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_non_null(mr_arena_take(&arena, 4000));
    size_t mark = mr_arena_mark(&arena);
    assert_null(mr_arena_take(&arena, 100));
    assert_null(mr_arena_take(&arena, SIZE_MAX));
    assert_null(mr_arena_take(&arena, SIZE_MAX - MR_ARENA_ALIGN));
    assert_int_equal(mr_arena_mark(&arena), mark);
    assert_non_null(mr_arena_take(&arena, MR_ARENA_ALIGN));
    mr_arena_deinit(&arena);
}

static void test_reset_gives_the_same_memory_again(void **state) {
    (void)state;
    mr_arena arena;
    mr_status status = mr_arena_init(&arena, 4096);
    assert_int_equal(status.code, MR_CODE_OK);
    unsigned char *kept = mr_arena_take(&arena, 100);
    size_t mark = mr_arena_mark(&arena);
    unsigned char *first = mr_arena_take(&arena, 200);
    assert_non_null(mr_arena_take(&arena, 300));
    mr_arena_reset(&arena, mark);
    assert_ptr_equal(mr_arena_take(&arena, 200), first);
    assert_true(first >= kept + 100);
    mr_arena_deinit(&arena);
}

static void test_rounded_is_what_take_uses(void **state) {
    (void)state;
    assert_int_equal(mr_arena_rounded(0), 0);
    assert_int_equal(mr_arena_rounded(1), MR_ARENA_ALIGN);
    assert_int_equal(mr_arena_rounded(MR_ARENA_ALIGN), MR_ARENA_ALIGN);
    assert_int_equal(mr_arena_rounded(MR_ARENA_ALIGN + 1), 2 * MR_ARENA_ALIGN);
}

static void test_impossible_size_is_a_status_that_names_it(void **state) {
    (void)state;
    mr_arena arena = {0};
    mr_status status = mr_arena_init(&arena, SIZE_MAX);
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(status.text, "18446744073709551615"));
    status = mr_arena_init(&arena, SIZE_MAX / 4);
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(status.text, "4611686018427387903"));
    assert_null(arena.base);
    mr_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taken_memory_is_aligned_zeroed_and_disjoint),
        cmocka_unit_test(test_full_arena_gives_null_and_stays_as_it_is),
        cmocka_unit_test(test_reset_gives_the_same_memory_again),
        cmocka_unit_test(test_rounded_is_what_take_uses),
        cmocka_unit_test(test_impossible_size_is_a_status_that_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
