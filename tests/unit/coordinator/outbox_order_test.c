/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: nothing leaves the outbox before the barrier in front of it has fallen, order is kept, and
 * a barrier that does not fall in time holds nobody up for ever. Method: items that write their
 * number down. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/coordinator/outbox.h"

typedef struct notes {
    uint64_t numbers[32];
    size_t count;
    mr_outbox *outbox; /* set: the first item adds number 99 */
} notes;

static void note_run(const mr_outbox_item *item) {
    notes *n = item->context;
    n->numbers[n->count++] = item->number;
    if (n->outbox == NULL)
        return;
    mr_outbox *outbox = n->outbox;
    n->outbox = NULL;
    mr_outbox_add(outbox, &(mr_outbox_item){.run = note_run, .context = n, .number = 99});
}

static void add(mr_outbox *outbox, notes *n, uint64_t number) {
    mr_outbox_add(outbox, &(mr_outbox_item){.run = note_run, .context = n, .number = number});
}

static mr_outbox *make(void) {
    mr_outbox *outbox = NULL;
    assert_int_equal(mr_outbox_create(&outbox).code, MR_CODE_OK);
    return outbox;
}

static void test_item_without_barrier_runs_at_once(void **unused) {
    (void)unused;
    mr_outbox *outbox = make();
    notes n = {0};
    add(outbox, &n, 1);
    assert_int_equal(n.count, 1);
    mr_outbox_destroy(outbox);
}

static void test_items_wait_for_their_barrier_in_order(void **unused) {
    (void)unused;
    mr_outbox *outbox = make();
    notes n = {0};
    uint64_t first = mr_outbox_barrier(outbox, 0);
    add(outbox, &n, 1);
    uint64_t second = mr_outbox_barrier(outbox, 0);
    add(outbox, &n, 2);
    add(outbox, &n, 3);
    assert_int_equal(n.count, 0);
    mr_outbox_release(outbox, first);
    assert_int_equal(n.count, 1);
    mr_outbox_release(outbox, second);
    assert_int_equal(n.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(n.numbers[i], i + 1);
    mr_outbox_destroy(outbox);
}

static void test_later_release_fells_earlier_barriers(void **unused) {
    (void)unused;
    mr_outbox *outbox = make();
    notes n = {0};
    (void)mr_outbox_barrier(outbox, 0);
    add(outbox, &n, 1);
    uint64_t second = mr_outbox_barrier(outbox, 0);
    add(outbox, &n, 2);
    mr_outbox_release(outbox, second);
    assert_int_equal(n.count, 2);
    mr_outbox_destroy(outbox);
}

static void test_item_added_by_an_item_comes_last(void **unused) {
    (void)unused;
    mr_outbox *outbox = make();
    notes n = {.outbox = outbox};
    uint64_t ticket = mr_outbox_barrier(outbox, 0);
    add(outbox, &n, 1);
    add(outbox, &n, 2);
    mr_outbox_release(outbox, ticket);
    assert_int_equal(n.count, 3);
    assert_int_equal(n.numbers[2], 99);
    mr_outbox_destroy(outbox);
}

static void test_old_barrier_falls_by_itself(void **unused) {
    (void)unused;
    mr_outbox *outbox = make();
    notes n = {0};
    (void)mr_outbox_barrier(outbox, 1000);
    add(outbox, &n, 1);
    assert_false(mr_outbox_tick(outbox, 1000 + MR_OUTBOX_WAIT_MS - 1));
    assert_int_equal(n.count, 0);
    assert_true(mr_outbox_tick(outbox, 1000 + MR_OUTBOX_WAIT_MS));
    assert_int_equal(n.count, 1);
    mr_outbox_destroy(outbox);
}

static void count_run(const mr_outbox_item *item) {
    ++*(size_t *)item->context;
}

static void test_full_outbox_lets_the_barrier_fall(void **unused) {
    (void)unused;
    mr_outbox *outbox = make();
    size_t count = 0;
    const mr_outbox_item item = {.run = count_run, .context = &count};
    (void)mr_outbox_barrier(outbox, 0); /* one of the entries */
    for (size_t i = 0; i + 1 < MR_OUTBOX_ITEMS_MAX; i++)
        mr_outbox_add(outbox, &item);
    assert_int_equal(count, 0);
    mr_outbox_add(outbox, &item);
    assert_int_equal(count, MR_OUTBOX_ITEMS_MAX);
    mr_outbox_destroy(outbox);
}

static void test_destroy_runs_what_waits(void **unused) {
    (void)unused;
    mr_outbox *outbox = make();
    notes n = {0};
    (void)mr_outbox_barrier(outbox, 0);
    add(outbox, &n, 1);
    mr_outbox_destroy(outbox);
    assert_int_equal(n.count, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_item_without_barrier_runs_at_once),
        cmocka_unit_test(test_items_wait_for_their_barrier_in_order),
        cmocka_unit_test(test_later_release_fells_earlier_barriers),
        cmocka_unit_test(test_item_added_by_an_item_comes_last),
        cmocka_unit_test(test_old_barrier_falls_by_itself),
        cmocka_unit_test(test_full_outbox_lets_the_barrier_fall),
        cmocka_unit_test(test_destroy_runs_what_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
