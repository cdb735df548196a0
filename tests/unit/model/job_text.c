/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/model/job_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

const char *const job_text_good =
    "schema: millrace.job/v1\n"                                                           /* 1 */
    "name: tiny-gpt\n"                                                                    /* 2 */
    "seed: 1234                       # base_seed\n"                                      /* 3 */
    "model:\n"                                                                            /* 4 */
    "  layers:\n"                                                                         /* 5 */
    "    - {type: embedding, tie: embed, vocab: 256, dim: 64, positions: 32}\n"           /* 6 */
    "    - {type: transformer_block, repeat: 6, dim: 64, heads: 8}\n"                     /* 7 */
    "    - {type: layernorm, dim: 64}\n"                                                  /* 8 */
    "    - {type: lm_head, tie: embed}\n"                                                 /* 9 */
    "  loss: cross_entropy            # or mse, or none (inference)\n"                    /* 10 */
    "  seed_layers: true\n"                                                               /* 11 */
    "pipeline:\n"                                                                         /* 12 */
    "  topology: {pipe: 2, data: 1, model: 1}\n"                                          /* 13 */
    "  partition: parameters\n"                                                           /* 14 */
    "  schedule: 1f1b\n"                                                                  /* 15 */
    "  chunks: 1\n"                                                                       /* 16 */
    "  activation_checkpoint_interval: 0\n"                                               /* 17 */
    "batch: {micro_batch_size: 4, micro_batches: 8, sequence_length: 32}\n"               /* 18 */
    "optimizer: {type: adamw, lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, "
    "grad_clip: 1.0}\n"                                                                   /* 19 */
    "lr_schedule: {type: cosine, warmup_steps: 20, total_steps: 300, min_lr: 6e-4}\n"     /* 20 */
    "precision: fp32\n"                                                                   /* 21 */
    "data: {format: bytes, train: corpus.txt, shuffle: true}\n"                           /* 22 */
    "checkpoint: {dir: checkpoints, every_steps: 100, keep: 3, initial: false}\n";        /* 23 */

const char *job_text_edit(const char *from, const char *to) {
    static char text[16384];
    const char *at = strstr(job_text_good, from);
    assert_non_null(at);
    int wrote = snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - job_text_good), job_text_good,
                         to, at + strlen(from));
    assert_in_range(wrote, 0, sizeof(text) - 1);
    return text;
}

mr_job *job_text_parse(const char *text) {
    mr_job *job = NULL;
    mr_status status = mr_job_parse(text, strlen(text), &job, NULL);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    return job;
}

static void refuse(const char *text, size_t line, const char *start, bool only) {
    mr_job *job = NULL;
    mr_job_errors errors;
    char expected[MR_STATUS_TEXT_BYTES];
    mr_status status = mr_job_parse(text, strlen(text), &job, &errors);
    assert_null(job);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_in_range(errors.count, 1, MR_JOB_ERRORS_MAX);
    if (strncmp(errors.items[0].text, start, strlen(start)) != 0)
        fail_msg("error is \"%s\" but should start with \"%s\"", errors.items[0].text, start);
    if (errors.items[0].line != line)
        fail_msg("\"%s\": line %zu, expected %zu", errors.items[0].text, errors.items[0].line,
                 line);
    if (only && errors.count != 1)
        fail_msg("a second error: \"%s\" after \"%s\"", errors.items[1].text,
                 errors.items[0].text);
    if (line > 0)
        (void)snprintf(expected, sizeof(expected), "line %zu: %s", line, errors.items[0].text);
    else
        (void)snprintf(expected, sizeof(expected), "%s", errors.items[0].text);
    assert_string_equal(status.text, expected);
}

void job_text_refuse(const char *text, size_t line, const char *start) {
    refuse(text, line, start, true);
}

void job_text_refuse_all(const job_mistake *mistakes, size_t count) {
    for (size_t i = 0; i < count; i++)
        job_text_refuse(job_text_edit(mistakes[i].from, mistakes[i].to), mistakes[i].line,
                        mistakes[i].start);
}

void job_text_refuse_first(const char *text, size_t line, const char *start) {
    refuse(text, line, start, false);
}
