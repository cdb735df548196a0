/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the library loads on a machine without a card and says what is missing: the driver, what it
 * answered, or the number of the card and how many there are.
 * Method: it lies beside this test; a number that no machine has. Passes on machines with cards,
 * too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/device/device.h"

static void test_a_card_that_is_not_there_is_told(void **state) {
    (void)state;
    mr_device *device = NULL;
    mr_status status = mr_device_create(&(mr_device_options){.kind = "cuda:999"}, &device);
    print_message("%s\n", status.text);
    assert_int_equal(status.code, MR_CODE_UNAVAILABLE);
    assert_non_null(strstr(status.text, "device cuda:999: "));
    assert_true(strstr(status.text, "there is no CUDA driver: libcuda.so.1") != NULL ||
                strstr(status.text, "the CUDA driver does not start: cuInit gives ") != NULL ||
                strstr(status.text, "CUDA devices are, numbered from 0") != NULL);
    assert_null(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_card_that_is_not_there_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
