/* SPDX-License-Identifier: Apache-2.0 */
/* ds_config.h: the settings of a ds_config.json as the part of a job file that says the same:
 * batch, optimizer, lr_schedule, precision, pipeline. The meaning of a key that is absent is the
 * field's default, written out, since the defaults here are others (weight_decay,
 * gradient_clipping). Meanings and defaults are those of release 0.19 (reference: ecosystem.md 5.6,
 * deepspeed.md 81, 82), where older releases differ it is said. Owner: client. Thread: main. Pure:
 * no I/O. Not here: reading the file and printing (job_import.c). */
#ifndef MR_CLIENT_DS_CONFIG_H
#define MR_CLIENT_DS_CONFIG_H

#include <stdint.h>

#include <jansson.h>

#include "client/ds_report.h"

/* Fills an empty report from the file's object. replicas: the data-parallel width, which the file
 * does not say; 0: take it from the three batch sizes, else 1. What is wrong goes to
 * report->errors; the rest of the report then is of no use. */
void mr_ds_config_read(const json_t *root, uint64_t replicas, mr_ds_report *report);

/* The parts that ds_optimizer.c reads: optimizer with gradient_clipping, and scheduler. */
void mr_ds_optimizer_read(const mr_ds_section *file);
/* fp16 and bf16, which ds_precision.c reads. */
void mr_ds_precision_read(const mr_ds_section *file);
/* zero_optimization, which ds_zero.c reads. */
void mr_ds_zero_read(const mr_ds_section *file);

#endif
