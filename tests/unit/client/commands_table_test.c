/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the command table is whole (every noun, verb and option has help; defaults pass their own
 * bounds) and command lines are read as it says, with the nearest match for a mistyped word; exit
 * codes are those promised. Method: the table is walked; lines are parsed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/commands.h"
#include "client/exit_code.h"
#include "client/help.h"
#include "client/suggest.h"

enum { WORDS_MAX = 12 };

/* Parses the words of a line, split at spaces. */
static mr_status parse(const char *line, mr_invocation *invocation) {
    static char text[256];
    char *argv[WORDS_MAX] = {NULL};
    int argc = 1;
    char program[] = "millrace";
    argv[0] = program;
    snprintf(text, sizeof(text), "%s", line);
    for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " ")) {
        assert_true(argc < WORDS_MAX);
        argv[argc++] = word;
    }
    return mr_invocation_parse(argc, argv, invocation);
}

static void check_error(const char *line, const char *text) {
    mr_invocation invocation;
    mr_status status = parse(line, &invocation);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    if (strstr(status.text, text) == NULL)
        fail_msg("%s: %s lacks: %s", line, status.text, text);
}

static void check_ok(const char *line, mr_invocation *invocation) {
    mr_status status = parse(line, invocation);
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", line, status.text);
}

/* The help of a command, noun or the client as text. */
static char *help_text(const mr_command *command, const char *noun) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    mr_help_print(out, 0, command, noun);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void test_every_row_has_help_and_its_noun(void **state) {
    (void)state;
    char *client = help_text(NULL, NULL);
    for (size_t i = 0; i < mr_noun_count; i++) {
        assert_true(strlen(mr_nouns[i].help) > 10);
        assert_non_null(strstr(client, mr_nouns[i].name));
    }
    for (size_t i = 0; i < mr_command_count; i++) {
        const mr_command *command = &mr_commands[i];
        assert_true(strlen(command->help) > 10);
        assert_int_equal(command->id, i);
        assert_true(command->argument_minimum <= command->argument_maximum);
        assert_true(command->argument_maximum <= MR_ARGUMENTS_MAX);
        assert_ptr_equal(mr_command_find(command->noun, command->verb), command);
        char *own = help_text(command, command->noun);
        assert_non_null(strstr(own, command->help));
        assert_non_null(strstr(own, "--server"));
        free(own);
        char *noun = help_text(NULL, command->noun);
        assert_non_null(strstr(noun, command->verb));
        free(noun);
    }
    free(client);
}

static void test_every_option_has_help_and_a_default_within_its_bounds(void **state) {
    (void)state;
    for (size_t i = 0; i < mr_option_count; i++) {
        const mr_option *option = &mr_options[i];
        assert_true(strlen(option->help) > 10);
        bool bounded = option->kind == MR_OPTION_INTEGER || option->kind == MR_OPTION_NUMBER;
        assert_true(!bounded || option->minimum < option->maximum);
        assert_true(option->kind == MR_OPTION_FLAG || option->argument != NULL);
        if (bounded && option->value != NULL) {
            double value = strtod(option->value, NULL);
            assert_true(value >= option->minimum && value <= option->maximum);
        }
        for (size_t j = 0; j < i; j++) {
            bool same_scope = mr_options[j].scope == option->scope ||
                              mr_options[j].scope == MR_COMMAND_global ||
                              option->scope == MR_COMMAND_global;
            assert_true(!same_scope || strcmp(mr_options[j].name, option->name) != 0);
            assert_true(!same_scope || option->letter == 0 ||
                        mr_options[j].letter != option->letter);
        }
    }
}

static void test_options_stand_anywhere_in_every_form(void **state) {
    (void)state;
    mr_invocation in;
    check_ok("-o json job get abc --server=unix:/x", &in);
    assert_int_equal(in.command->id, MR_COMMAND_job_get);
    assert_string_equal(in.arguments[0], "abc");
    assert_string_equal(mr_invocation_text(&in, "output"), "json");
    assert_string_equal(mr_invocation_text(&in, "server"), "unix:/x");
    assert_false(mr_invocation_given(&in, "timeout"));
    assert_true(mr_invocation_number(&in, "timeout") > 29);
    check_ok("generate -n7 f.yaml --temperature 0 -qojsonl", &in);
    assert_int_equal(mr_invocation_integer(&in, "tokens"), 7);
    assert_int_equal(mr_invocation_integer(&in, "top-k"), 40);
    assert_true(mr_invocation_given(&in, "quiet"));
    assert_string_equal(mr_invocation_text(&in, "output"), "jsonl");
    check_ok("train -- --odd-name", &in);
    assert_string_equal(in.arguments[0], "--odd-name");
    check_ok("job validate -", &in);
    assert_string_equal(in.arguments[0], "-");
}

static void test_resume_takes_its_tag_only_with_an_equals_sign(void **state) {
    (void)state;
    mr_invocation in;
    check_ok("train f.yaml", &in);
    assert_false(mr_invocation_given(&in, "resume"));
    check_ok("train --resume f.yaml", &in);
    assert_true(mr_invocation_given(&in, "resume"));
    assert_string_equal(mr_invocation_text(&in, "resume"), "");
    assert_string_equal(in.arguments[0], "f.yaml");
    check_ok("train f.yaml --resume=step-000000000100", &in);
    assert_string_equal(mr_invocation_text(&in, "resume"), "step-000000000100");
}

static void test_mistyped_words_are_answered_with_the_nearest(void **state) {
    (void)state;
    check_error("jbo list", "did you mean job?");
    check_error("trian f", "did you mean train?");
    check_error("job lst", "did you mean job list?");
    check_error("job canel x", "did you mean job cancel?");
    check_error("job sub x", "did you mean job submit?");
    check_error("checkpoint verfiy x", "did you mean checkpoint verify?");
    check_error("submit f", "did you mean job submit?");
    check_error("generate --temprature 1", "did you mean --temperature?");
    check_error("job list --sever x", "did you mean --server?");
    check_error("job list --resume", "unknown option --resume");
    check_error("xyzzy", "unknown command xyzzy");
    check_error("job xyzzy", "job has no verb xyzzy");
}

static void test_wrong_counts_and_values_are_refused(void **state) {
    (void)state;
    check_error("", "no command");
    check_error("job", "job needs a verb");
    check_error("job get", "job get needs JOB");
    check_error("job get a b", "b is too much");
    check_error("version 1", "takes no argument");
    check_error("generate --tokens 0", "from 1 to");
    check_error("generate --tokens 7x", "7x");
    check_error("generate --tokens 99999999999999999999", "from 1 to");
    check_error("generate --temperature -1", "from 0 to");
    check_error("generate --temperature nan", "nan");
    check_error("job list -o xml", "table|wide|json|jsonl|name");
    check_error("job list -o jso", "jso");
    check_error("job list -o", "needs a value");
    check_error("job list --quiet=1", "takes no value");
    check_error("job list -z", "unknown option -z");
}

static void test_times_may_have_a_unit(void **state) {
    (void)state;
    static const struct {
        const char *line;
        double seconds;
    } times[] = {{"job list --timeout 30s", 30},
                 {"job list --timeout=500ms", 0.5},
                 {"job list --timeout 2m", 120},
                 {"job list --timeout 1h", 3600},
                 {"job list --timeout 1.5", 1.5}};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        mr_invocation in;
        check_ok(times[i].line, &in);
        assert_true(mr_invocation_number(&in, "timeout") == times[i].seconds);
    }
    check_error("job list --timeout 30x", "--timeout is 30x; it must be a number from 0.001");
    check_error("job list --timeout 25h", "--timeout is 25h");
    check_error("generate --temperature 1s", "--temperature is 1s");
}

static void test_help_needs_nothing_more(void **state) {
    (void)state;
    mr_invocation in;
    check_ok("--help", &in);
    assert_true(in.help && in.noun == NULL);
    check_ok("job -h", &in);
    assert_true(in.help && in.command == NULL);
    assert_string_equal(in.noun, "job");
    check_ok("job submit --help", &in);
    assert_true(in.help);
    assert_int_equal(in.command->id, MR_COMMAND_job_submit);
}

static void test_distance_counts_edits(void **state) {
    (void)state;
    assert_int_equal(mr_suggest_distance("", "abc"), 3);
    assert_int_equal(mr_suggest_distance("train", "train"), 0);
    assert_int_equal(mr_suggest_distance("trian", "train"), 1);
    assert_int_equal(mr_suggest_distance("tran", "train"), 1);
    assert_int_equal(mr_suggest_distance("kitten", "sitting"), 3);
    assert_true(mr_suggest_distance("a-word-that-is-far-too-long-to-be-one", "train") > 1000);
}

static void test_exit_codes_are_those_promised(void **state) {
    (void)state;
    static const struct {
        mr_code code;
        int exit_code;
    } promised[] = {
        {MR_CODE_OK, 0},
        {MR_CODE_INTERNAL, 1},
        {MR_CODE_DATA_LOSS, 1},
        {MR_CODE_INVALID_ARGUMENT, 2},
        {MR_CODE_NOT_FOUND, 3},
        {MR_CODE_FAILED_PRECONDITION, 4},
        {MR_CODE_ABORTED, 4},
        {MR_CODE_ALREADY_EXISTS, 4},
        {MR_CODE_UNAVAILABLE, 5},
        {MR_CODE_UNAUTHENTICATED, 6},
        {MR_CODE_PERMISSION_DENIED, 6},
        {MR_CODE_DEADLINE_EXCEEDED, 7},
    };
    for (size_t i = 0; i < sizeof(promised) / sizeof(promised[0]); i++)
        assert_int_equal(mr_exit_code_of(promised[i].code), promised[i].exit_code);
    for (int code = 1; code < MR_CODE_COUNT; code++)
        assert_int_not_equal(mr_exit_code_of((mr_code)code), 0);
    assert_int_equal(mr_exit_code_of((mr_code)99), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_has_help_and_its_noun),
        cmocka_unit_test(test_every_option_has_help_and_a_default_within_its_bounds),
        cmocka_unit_test(test_options_stand_anywhere_in_every_form),
        cmocka_unit_test(test_resume_takes_its_tag_only_with_an_equals_sign),
        cmocka_unit_test(test_mistyped_words_are_answered_with_the_nearest),
        cmocka_unit_test(test_wrong_counts_and_values_are_refused),
        cmocka_unit_test(test_times_may_have_a_unit),
        cmocka_unit_test(test_help_needs_nothing_more),
        cmocka_unit_test(test_distance_counts_edits),
        cmocka_unit_test(test_exit_codes_are_those_promised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
