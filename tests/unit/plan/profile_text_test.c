/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a profile survives being printed and read, equal layers are one class, and a text that is
 * not a profile is refused with the key, the value and what it must be.
 * Method: profiles made by hand; a good text with one thing wrong at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/profile.h"

static const char job_text[] =
    "schema: millrace.job/v1\n"
    "name: text\n"
    "model:\n"
    "  layers:\n"
    "    - {type: linear, in: 8, out: 8}\n"
    "    - {type: linear, in: 8, out: 8, name: second}\n"
    "    - {type: relu}\n"
    "    - {type: linear, repeat: 2, in: 8, out: 8}\n"
    "    - {type: linear, in: 8, out: 16}\n"
    "    - {type: relu}\n"
    "  loss: mse\n"
    "batch: {micro_batch_size: 2, sequence_length: 4}\n"
    "lr_schedule: {total_steps: 3}\n";

static void good(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
}

static mr_profile *profile_make(mr_job **out_job) {
    mr_layer_description layers[8];
    mr_profile *profile = NULL;
    good(mr_job_parse(job_text, strlen(job_text), out_job, NULL));
    good(mr_job_describe(*out_job, layers));
    good(mr_profile_create(*out_job, layers, &profile));
    return profile;
}

static mr_profile_device *device_make(const mr_profile *profile, const char *kind,
                                      const char *address) {
    mr_profile_device *device = NULL;
    good(mr_profile_device_create(profile->class_count, &device));
    (void)snprintf(device->device, sizeof(device->device), "%s", kind);
    (void)snprintf(device->address, sizeof(device->address), "%s", address);
    device->threads = 1;
    device->memory_bytes = 1u << 30;
    device->loss = 0.125;
    device->link_byte = 1.5e-9;
    for (size_t i = 0; i < device->class_count; i++)
        device->costs[i] = (mr_profile_cost){.forward = 0.001 * (double)(i + 1),
                                             .backward_input = 0.25,
                                             .backward_weight = 3e-7,
                                             .saved_bytes = 64 * i};
    return device;
}

static void test_equal_layers_are_one_class_but_the_first(void **state) {
    (void)state;
    mr_job *job = NULL;
    mr_profile *profile = profile_make(&job);
    static const uint32_t wanted[] = {0, 1, 2, 1, 1, 3, 4}; /* relu of 8 is not relu of 16 */
    assert_int_equal(profile->layer_count, 7);
    assert_int_equal(profile->class_count, 5);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(profile->layer_class[i], wanted[i]);
    assert_int_equal(profile->classes[1].layer, 1);
    assert_int_equal(profile->classes[1].layer_count, 3);
    assert_string_equal(profile->classes[2].type, "relu");
    mr_profile_destroy(profile);
    mr_job_destroy(job);
}

static void test_what_is_printed_is_read(void **state) {
    (void)state;
    mr_job *job = NULL;
    mr_profile *profile = profile_make(&job);
    mr_profile *read = NULL;
    char *text = NULL;
    char *again = NULL;
    good(mr_profile_add(profile, device_make(profile, "cpu", "a:1")));
    good(mr_profile_add(profile, device_make(profile, "cuda:0", "b:1")));
    good(mr_profile_json(profile, &text));
    good(mr_profile_parse(text, strlen(text), &read));
    good(mr_profile_check(read, job));
    assert_int_equal(read->device_count, 2);
    assert_true(read->devices[1]->costs[2].forward == 0.003);
    assert_int_equal(read->devices[0]->costs[4].saved_bytes, 256);
    good(mr_profile_json(read, &again));
    assert_string_equal(text, again);
    mr_free(again);
    mr_free(text);
    mr_profile_destroy(read);
    mr_profile_destroy(profile);
    mr_job_destroy(job);
}

static void test_a_member_is_matched_by_address_then_by_kind(void **state) {
    (void)state;
    mr_job *job = NULL;
    mr_profile *profile = profile_make(&job);
    good(mr_profile_add(profile, device_make(profile, "cpu", "a:1")));
    good(mr_profile_add(profile, device_make(profile, "cpu", "b:1")));
    good(mr_profile_add(profile, device_make(profile, "cuda:0", "c:1")));
    assert_int_equal(mr_profile_match(profile, "cpu", 1, "b:1"), 1);
    assert_int_equal(mr_profile_match(profile, "cpu", 1, "x:1"), 0);
    assert_int_equal(mr_profile_match(profile, "cpu", 2, "b:1"), 3);
    assert_int_equal(mr_profile_match(profile, "cuda:0", 1, "x:1"), 2);
    assert_int_equal(mr_profile_match(profile, "cuda:3", 1, "x:1"), 2);
    assert_int_equal(mr_profile_match(profile, "cud", 1, "x:1"), 3);
    assert_ptr_equal(mr_profile_of_rank(profile, 1), profile->devices[1]);
    assert_ptr_equal(mr_profile_of_rank(profile, 9), profile->devices[2]);
    mr_profile_destroy(profile);
    mr_job_destroy(job);
}

typedef struct mistake {
    const char *from;
    const char *to;
    const char *error;
} mistake;

static void test_a_bad_text_is_refused_by_key_and_value(void **state) {
    (void)state;
    static const mistake mistakes[] = {
        {"millrace.profile/v1", "millrace.profile/v2", "profile: schema must be"},
        {"\"micro_batch_size\":2", "\"micro_batch_size\":0",
         "profile: micro_batch_size is 0; it must be 1 to"},
        {"\"layers\":[0,", "\"layers\":[5,", "profile: layers[0] must be a class, 0 to 4"},
        {"\"layers\":[0,1,2,1,1,3,4]", "\"layers\":[]", "profile: layers is []; it must be"},
        {"\"forward\":0.002", "\"forward\":-1",
         "profile: devices[0].costs[1].forward is -1; it must be a number of seconds"},
        {"\"loss\":0.125", "\"loss\":\"x\"", "profile: devices[0].loss is \"x\"; it must be"},
        {"\"threads\":1", "\"threads\":-1", "profile: devices[0].threads is -1"},
        {"\"saved_bytes\":64", "\"saved_bytes\":1.5",
         "profile: devices[0].costs[1].saved_bytes is 1.5"},
        {"\"device\":\"cpu\"", "\"kind\":\"cpu\"", "profile: devices[0].device is missing"},
        {"{", "[", "profile: line 1:"},
    };
    mr_job *job = NULL;
    mr_profile *profile = profile_make(&job);
    char *text = NULL;
    good(mr_profile_add(profile, device_make(profile, "cpu", "a:1")));
    good(mr_profile_json(profile, &text));
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        char *bad = mr_alloc(2 * strlen(text));
        const char *at = strstr(text, mistakes[i].from);
        assert_non_null(at);
        (void)snprintf(bad, 2 * strlen(text), "%.*s%s%s", (int)(at - text), text, mistakes[i].to,
                       at + strlen(mistakes[i].from));
        mr_profile *read = NULL;
        mr_status status = mr_profile_parse(bad, strlen(bad), &read);
        assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
        if (strstr(status.text, mistakes[i].error) == NULL)
            fail_msg("\"%s\" instead of \"%s\"", status.text, mistakes[i].error);
        mr_free(bad);
    }
    mr_free(text);
    mr_profile_destroy(profile);
    mr_job_destroy(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_layers_are_one_class_but_the_first),
        cmocka_unit_test(test_what_is_printed_is_read),
        cmocka_unit_test(test_a_member_is_matched_by_address_then_by_kind),
        cmocka_unit_test(test_a_bad_text_is_refused_by_key_and_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
