/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the value of a setting is that of the first source that says something, its own before its
 * context's; files are strict and errors name file, line and key; what is written can be read.
 * Method: all combinations of sources over files in a temporary folder; texts with one fault each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/config.h"

enum { PATH_BYTES = 512, SOURCES = 5 };

static char folder[PATH_BYTES];
static char project[PATH_BYTES * 2];
static char inner[PATH_BYTES * 2];
static char user[PATH_BYTES * 2];
static char system_file[PATH_BYTES * 2];
static const char *environment_server; /* what MILLRACE_SERVER is */
static const char *environment_context;

static const char *environment(const char *name) {
    if (strcmp(name, "MILLRACE_SERVER") == 0)
        return environment_server;
    return strcmp(name, "MILLRACE_CONTEXT") == 0 ? environment_context : NULL;
}

static int setup(void **state) {
    (void)state;
    const char *base = getenv("TEST_TMPDIR");
    snprintf(folder, sizeof(folder), "%s/config-XXXXXX", base ? base : "/tmp");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(project, sizeof(project), "%s/millrace.yaml", folder);
    snprintf(inner, sizeof(inner), "%s/inner", folder);
    snprintf(user, sizeof(user), "%s/user/config.yaml", folder);
    snprintf(system_file, sizeof(system_file), "%s/system.yaml", folder);
    return mkdir(inner, 0700);
}

static int clear(void **state) {
    (void)state;
    (void)unlink(project); /* a test makes only some of them */
    (void)unlink(user);
    (void)unlink(system_file);
    environment_server = NULL;
    environment_context = NULL;
    return 0;
}

static int teardown(void **state) {
    char path[PATH_BYTES * 2];
    (void)clear(state);
    (void)rmdir(inner);
    snprintf(path, sizeof(path), "%s/user", folder);
    (void)rmdir(path);
    return rmdir(folder);
}

static void put(const char *path, const char *text) {
    char above[PATH_BYTES * 2];
    snprintf(above, sizeof(above), "%s/user", folder);
    (void)mkdir(above, 0700); /* it may be there */
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs("schema: millrace.config/v1\n", file) >= 0);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static mr_status load(const char *server, const char *context, mr_config *config,
                      mr_invocation *invocation) {
    static char words[7][64] = {"millrace", "job", "list"};
    char *argv[7];
    int argc = 3;
    for (size_t i = 0; i < 7; i++)
        argv[i] = words[i];
    if (server != NULL) {
        snprintf(words[argc++], sizeof(words[0]), "--server");
        snprintf(words[argc++], sizeof(words[0]), "%s", server);
    }
    if (context != NULL) {
        snprintf(words[argc++], sizeof(words[0]), "--context");
        snprintf(words[argc++], sizeof(words[0]), "%s", context);
    }
    assert_true(mr_status_is_ok(mr_invocation_parse(argc, argv, invocation)));
    const mr_config_sources sources = {
        .environment = environment,
        .project_folder = inner,
        .user_path = user,
        .system_path = system_file,
    };
    return mr_config_load(&sources, invocation, config);
}

static void check_found(mr_config *config, const char *setting, const char *value,
                        mr_config_origin origin, const char *context) {
    mr_config_found found;
    mr_status status = mr_config_find(config, mr_setting_find(setting), &found);
    assert_true(mr_status_is_ok(status));
    assert_string_equal(found.value, value);
    assert_int_equal(found.origin, origin);
    if (context == NULL)
        assert_null(found.context);
    else
        assert_string_equal(found.context, context);
}

static void test_the_first_source_that_says_something_counts(void **state) {
    static const char *const values[SOURCES + 1] = {"flag:1",   "environment:1", "project:1",
                                                    "user:1",   "system:1",      "127.0.0.1:9700"};
    for (unsigned set = 0; set < 1u << SOURCES; set++) {
        static mr_config config;
        mr_invocation invocation;
        size_t first = 0;
        (void)clear(state);
        environment_server = (set & 2) != 0 ? values[1] : NULL;
        if ((set & 4) != 0)
            put(project, "server: project:1\n");
        if ((set & 8) != 0)
            put(user, "server: user:1\n");
        if ((set & 16) != 0)
            put(system_file, "server: system:1\n");
        while (first < SOURCES && (set >> first & 1) == 0)
            first++;
        mr_status status = load((set & 1) != 0 ? values[0] : NULL, NULL, &config, &invocation);
        assert_true(mr_status_is_ok(status));
        check_found(&config, "server", values[first], (mr_config_origin)first, NULL);
        assert_true(mr_status_is_ok(mr_config_apply(&config, &invocation)));
        assert_string_equal(mr_invocation_text(&invocation, "server"), values[first]);
        assert_int_equal(mr_invocation_set(&invocation, "server"), first < SOURCES);
        mr_config_deinit(&config);
    }
}

static void test_a_context_counts_where_it_is_named(void **state) {
    static mr_config config;
    mr_invocation invocation;
    (void)clear(state);
    put(user, "context: a\nserver: own:1\ncontexts:\n  a: {server: \"a:1\", output: json}\n"
              "  b: {server: \"b:1\", insecure: true}\n");
    put(system_file, "timeout: 7\ncontexts: {a: {timeout: 9}, c: {server: \"c:1\"}}\n");
    assert_true(mr_status_is_ok(load(NULL, NULL, &config, &invocation)));
    check_found(&config, "server", "own:1", MR_CONFIG_USER, NULL);
    check_found(&config, "output", "json", MR_CONFIG_USER, "a");
    check_found(&config, "timeout", "7", MR_CONFIG_SYSTEM, NULL); /* the two a are not mixed */
    mr_config_deinit(&config);

    environment_server = "environment:1";
    assert_true(mr_status_is_ok(load(NULL, "b", &config, &invocation)));
    check_found(&config, "server", "b:1", MR_CONFIG_FLAG, "b");
    assert_true(mr_status_is_ok(mr_config_apply(&config, &invocation)));
    assert_true(mr_invocation_flag(&invocation, "insecure"));
    mr_config_deinit(&config);

    environment_context = "c";
    assert_true(mr_status_is_ok(load(NULL, NULL, &config, &invocation)));
    check_found(&config, "server", "environment:1", MR_CONFIG_ENVIRONMENT, NULL);
    mr_config_deinit(&config);
    environment_server = NULL;
    assert_true(mr_status_is_ok(load(NULL, NULL, &config, &invocation)));
    check_found(&config, "server", "c:1", MR_CONFIG_ENVIRONMENT, "c");
    mr_config_deinit(&config);
}

static void test_an_unknown_context_is_named_with_its_source(void **state) {
    static mr_config config;
    mr_invocation invocation;
    (void)clear(state);
    put(user, "contexts: {laboratory: {server: \"a:1\"}}\n");
    assert_true(mr_status_is_ok(load(NULL, "labratory", &config, &invocation)));
    mr_status status = mr_config_apply(&config, &invocation);
    assert_int_equal(status.code, MR_CODE_NOT_FOUND);
    assert_non_null(strstr(status.text, "--context: context is labratory"));
    assert_non_null(strstr(status.text, "did you mean laboratory?"));
    mr_config_deinit(&config);
}

static void test_a_job_file_of_the_project_name_is_passed_over(void **state) {
    static mr_config config;
    mr_invocation invocation;
    (void)clear(state);
    FILE *file = fopen(project, "w");
    assert_non_null(file);
    assert_true(fputs("schema: millrace.job/v1\nname: x\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_true(mr_status_is_ok(load(NULL, NULL, &config, &invocation)));
    check_found(&config, "server", "127.0.0.1:9700", MR_CONFIG_DEFAULT, NULL);
    mr_config_deinit(&config);
}

static void test_another_users_project_file_is_not_used(void **state) {
    static mr_config config;
    mr_invocation invocation;
    (void)clear(state);
    put(project, "server: trap:1\n");
    if (chown(project, 12345, 12345) != 0) {
        print_message("skipped: a file cannot be given away here\n");
        skip();
    }
    assert_true(mr_status_is_ok(load(NULL, NULL, &config, &invocation)));
    check_found(&config, "server", "127.0.0.1:9700", MR_CONFIG_DEFAULT, NULL);
    assert_string_equal(config.foreign_project, project);
    mr_config_deinit(&config);
}

static void test_faults_are_named_with_file_line_and_key(void **state) {
    static const struct {
        const char *text;
        const char *wanted;
    } faults[] = {
        {"servr: x\n", "user/config.yaml: line 2: unknown key servr; did you mean server?"},
        {"server: x\nserver: y\n", "line 3: key server stands on line 2 already"},
        {"timeout: 0\n", "line 2: timeout is 0; it must be a number from 0.001 to 86400"},
        {"output: xml\n", "output is xml; it must be one of table|wide|json|jsonl|name"},
        {"insecure: yes\n", "insecure is yes; it must be true or false"},
        {"server: [a]\n", "server has no value; it must be one text"},
        {"server: ''\n", "server has no value"},
        {"contexts: [a]\n", "contexts is no mapping"},
        {"contexts: {a: b}\n", "context a is no mapping"},
        {"contexts: {a: {context: b}}\n", "contexts do not nest"},
        {"contexts: {a: {serve: b}}\n", "unknown key serve; did you mean server?"},
        {"contexts: {\"a b\": {}}\n", "a context's name is \"a b\""},
        {"contexts: {a: {}, a: {}}\n", "key a stands on line 2 already"},
        {"server: \"x\n", "line 2"},
    };
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        static mr_config config;
        mr_invocation invocation;
        (void)clear(state);
        put(user, faults[i].text);
        mr_status status = load(NULL, NULL, &config, &invocation);
        assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
        if (strstr(status.text, faults[i].wanted) == NULL)
            fail_msg("%s lacks: %s", status.text, faults[i].wanted);
        mr_config_deinit(&config);
    }
}

static void test_what_is_written_is_read_again(void **state) {
    static mr_config_file file;
    static mr_config_file again;
    mr_config_context *context = NULL;
    (void)clear(state);
    assert_int_equal(mr_config_file_read(user, &file).code, MR_CODE_NOT_FOUND);
    assert_true(mr_status_is_ok(mr_config_file_context(&file, "odd.name", &context)));
    assert_true(mr_status_is_ok(mr_config_values_set(
        &context->values, mr_setting_find("server"), "server", "unix:/a \"b\"\\c: #d")));
    assert_true(mr_status_is_ok(mr_config_values_set(
        &context->values, mr_setting_find("insecure"), "insecure", "false")));
    assert_true(mr_status_is_ok(mr_config_file_context(&file, "empty", &context)));
    assert_true(mr_status_is_ok(
        mr_config_values_set(&file.values, mr_setting_find("context"), "context", "odd.name")));
    assert_true(mr_status_is_ok(mr_config_file_write(&file)));
    assert_true(mr_status_is_ok(mr_config_file_read(user, &again)));
    assert_int_equal(again.context_count, 2);
    assert_string_equal(again.values.text[mr_setting_find("context")], "odd.name");
    context = mr_config_file_find(&again, "odd.name");
    assert_non_null(context);
    assert_string_equal(context->values.text[mr_setting_find("server")], "unix:/a \"b\"\\c: #d");
    assert_string_equal(context->values.text[mr_setting_find("insecure")], "false");
    mr_config_file_remove(&again, context);
    assert_null(mr_config_file_find(&again, "odd.name"));
    assert_non_null(mr_config_file_find(&again, "empty"));
    mr_config_file_deinit(&again);
    mr_config_file_deinit(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_source_that_says_something_counts),
        cmocka_unit_test(test_a_context_counts_where_it_is_named),
        cmocka_unit_test(test_an_unknown_context_is_named_with_its_source),
        cmocka_unit_test(test_a_job_file_of_the_project_name_is_passed_over),
        cmocka_unit_test(test_another_users_project_file_is_not_used),
        cmocka_unit_test(test_faults_are_named_with_file_line_and_key),
        cmocka_unit_test(test_what_is_written_is_read_again),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
