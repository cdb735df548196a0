/* SPDX-License-Identifier: Apache-2.0 */
/* ds_optimizer.c: optimizer, gradient_clipping and scheduler of a ds_config.json. Two traps: "Adam"
 * is AdamW unless adam_w_mode is false, and a warm-up is logarithmic unless warmup_type says
 * linear. */
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "client/ds_config.h"

#define STEPS_MAX 999999999999ULL
#define LR_MAX 1000.0

/* What is known of the learning rate once the optimizer is read. */
typedef struct ds_rate {
    bool known;
    double lr;
} ds_rate;

/* ---- optimizer ------------------------------------------------------------------------------- */

static const char *const adam_carried[] = {"lr",           "betas",       "eps",
                                           "weight_decay", "adam_w_mode", NULL};
static const mr_ds_reason adam_reasons[] = {
    {"torch_adam", "it chooses an implementation"},
    {"fused", "it chooses an implementation"},
    {"foreach", "it chooses an implementation"},
    {"capturable", "it chooses an implementation"},
    {"set_grad_none", "it chooses an implementation"},
    {"fp32_optimizer_states", "optimizer state is fp32, always"},
    {"bias_correction", "the moments are bias-corrected, always"},
    {"amsgrad", "there is no such form of AdamW here"},
    {"maximize", "the loss is made smaller, always"},
    {"max_grad_norm", "DeepSpeed refuses it too; gradient_clipping says it"},
    {NULL, NULL},
};

static bool betas_read(const mr_ds_section *params, double betas[2]) {
    const json_t *list = mr_ds_section_get(params, "betas");
    if (list == NULL)
        return true;
    bool good = json_is_array(list) && json_array_size(list) == 2;
    for (size_t i = 0; good && i < 2; i++) {
        const json_t *item = json_array_get(list, i);
        good = json_is_number(item) && json_number_value(item) >= 0 && json_number_value(item) < 1;
        betas[i] = json_number_value(item);
    }
    if (!good)
        mr_ds_refuse(params, "betas", "a list of two numbers, each of at least 0 and below 1");
    return good;
}

static void decay_explain(const mr_ds_section *params, double weight_decay) {
    if (weight_decay > 0)
        mr_ds_differ(params, "weight_decay",
                     "here only parameters of two or more dimensions decay, there all of a group");
}

/* adam_w_mode counts for type Adam alone. */
static void adam_explain_decay(const mr_ds_section *params, bool is_adamw, bool adam_w_mode,
                               double weight_decay) {
    if (!adam_w_mode && is_adamw)
        mr_ds_leave(params, "adam_w_mode", "type AdamW is AdamW whatever it says");
    decay_explain(params, weight_decay);
}

static void adam_read(const mr_ds_section *params, bool is_adamw, ds_rate *rate) {
    mr_ds_report *report = params->report;
    bool adam_w_mode = true;
    bool torch_adam = false;
    double lr = 1e-3;
    double betas[2] = {0.9, 0.999};
    double eps = 1e-8;
    bool good = mr_ds_read_bool(params, "adam_w_mode", &adam_w_mode);
    good &= mr_ds_read_bool(params, "torch_adam", &torch_adam);
    good &= mr_ds_read_number(params, "lr", 0, true, LR_MAX, &lr);
    good &= mr_ds_read_number(params, "eps", 0, true, 1, &eps);
    good &= betas_read(params, betas);
    /* the one default that the implementations do not share */
    double weight_decay = torch_adam && (is_adamw || adam_w_mode) ? 0.01 : 0;
    good &= mr_ds_read_number(params, "weight_decay", 0, false, 1000, &weight_decay);
    if (!good)
        return;
    *rate = (ds_rate){.known = true, .lr = lr};
    const char *type = is_adamw || adam_w_mode ? "adamw" : "adam";
    mr_ds_report_set(report, "optimizer", "type", json_string(type));
    mr_ds_report_set(report, "optimizer", "lr", json_real(lr));
    mr_ds_report_set(report, "optimizer", "betas", json_pack("[f, f]", betas[0], betas[1]));
    mr_ds_report_set(report, "optimizer", "eps", json_real(eps));
    mr_ds_report_set(report, "optimizer", "weight_decay", json_real(weight_decay));
    adam_explain_decay(params, is_adamw, adam_w_mode, weight_decay);
    mr_ds_leave_rest(params, adam_carried, adam_reasons, "it is not known here");
}

/* ---- sgd and lion ---------------------------------------------------------------------------- */

static const char *const sgd_carried[] = {"lr", "momentum", "nesterov", "weight_decay", NULL};
static const mr_ds_reason sgd_reasons[] = {
    {"dampening", "momentum takes the whole gradient, always"},
    {"foreach", "it chooses an implementation"},
    {"fused", "it chooses an implementation"},
    {"maximize", "the loss is made smaller, always"},
    {NULL, NULL},
};

static void sgd_read(const mr_ds_section *params, ds_rate *rate) {
    double lr = 1e-3;
    double momentum = 0;
    double weight_decay = 0;
    bool nesterov = false;
    bool good = mr_ds_read_number(params, "lr", 0, true, LR_MAX, &lr);
    good &= mr_ds_read_number(params, "momentum", 0, false, 1, &momentum);
    good &= mr_ds_read_bool(params, "nesterov", &nesterov);
    good &= mr_ds_read_number(params, "weight_decay", 0, false, 1000, &weight_decay);
    if (good && momentum >= 1) {
        mr_ds_refuse(params, "momentum", "a number of at least 0 and below 1");
        return;
    }
    if (good && nesterov && momentum <= 0) {
        mr_ds_refuse(params, "nesterov", "false where momentum is 0");
        return;
    }
    if (!good)
        return;
    *rate = (ds_rate){.known = true, .lr = lr};
    mr_ds_report_set(params->report, "optimizer", "type", json_string("sgd"));
    mr_ds_report_set(params->report, "optimizer", "lr", json_real(lr));
    mr_ds_report_set(params->report, "optimizer", "momentum", json_real(momentum));
    mr_ds_report_set(params->report, "optimizer", "nesterov", json_boolean(nesterov));
    mr_ds_report_set(params->report, "optimizer", "weight_decay", json_real(weight_decay));
    decay_explain(params, weight_decay);
    mr_ds_leave_rest(params, sgd_carried, sgd_reasons, "it is not known here");
}

static const char *const lion_carried[] = {"lr", "betas", "weight_decay", NULL};
static const mr_ds_reason lion_reasons[] = {
    {"set_grad_none", "it chooses an implementation"},
    {"fp32_optimizer_states", "optimizer state is fp32, always"},
    {NULL, NULL},
};

static void lion_read(const mr_ds_section *params, ds_rate *rate) {
    double lr = 1e-3;
    double betas[2] = {0.9, 0.99};
    double weight_decay = 0;
    bool good = mr_ds_read_number(params, "lr", 0, true, LR_MAX, &lr);
    good &= betas_read(params, betas);
    good &= mr_ds_read_number(params, "weight_decay", 0, false, 1000, &weight_decay);
    if (!good)
        return;
    *rate = (ds_rate){.known = true, .lr = lr};
    mr_ds_report_set(params->report, "optimizer", "type", json_string("lion"));
    mr_ds_report_set(params->report, "optimizer", "lr", json_real(lr));
    mr_ds_report_set(params->report, "optimizer", "betas",
                     json_pack("[f, f]", betas[0], betas[1]));
    mr_ds_report_set(params->report, "optimizer", "weight_decay", json_real(weight_decay));
    decay_explain(params, weight_decay);
    mr_ds_leave_rest(params, lion_carried, lion_reasons, "it is not known here");
}

static void optimizer_read(const mr_ds_section *file, ds_rate *rate) {
    static const char *const carried[] = {"type", "params", NULL};
    static const char *const none[] = {NULL};
    static const mr_ds_reason reasons[] = {
        {"legacy_fusion", "it chooses an implementation"},
        {NULL, NULL},
    };
    mr_ds_section section = mr_ds_section_open(file, "optimizer");
    mr_ds_section params = mr_ds_section_open(&section, "params");
    const char *type = NULL;
    if (!mr_ds_read_text(&section, "type", &type))
        return;
    mr_ds_leave_rest(&section, carried, reasons, "it is not known here");
    if (type != NULL && strcasecmp(type, "auto") == 0) {
        mr_ds_refuse(&section, "type", "Adam, AdamW, SGD or Lion");
    } else if (type != NULL && (strcasecmp(type, "Adam") == 0 || strcasecmp(type, "AdamW") == 0)) {
        adam_read(&params, strcasecmp(type, "AdamW") == 0, rate);
    } else if (type != NULL && strcasecmp(type, "SGD") == 0) {
        sgd_read(&params, rate);
    } else if (type != NULL && strcasecmp(type, "Lion") == 0) {
        lion_read(&params, rate);
    } else {
        mr_ds_report_miss(file->report, "optimizer.type");
        if (type != NULL)
            mr_ds_leave(&section, "type", "a job file knows adamw, adam, sgd and lion");
        mr_ds_leave_rest(&params, none, reasons + 1,
                         "it belongs to an optimizer that is not there");
    }
}

static void clipping_read(const mr_ds_section *file) {
    double clip = 1;
    if (!mr_ds_read_number(file, "gradient_clipping", 0, false, DBL_MAX, &clip))
        return;
    if (!mr_ds_section_has(file, "gradient_clipping"))
        mr_ds_differ(
            file, "gradient_clipping",
            "the file does not say it: 1 is DeepSpeed's default in release 0.19; earlier ones had "
            "0, which clips nothing");
    mr_ds_report_set(file->report, "optimizer", "grad_clip", json_real(clip));
}

/* ---- scheduler ------------------------------------------------------------------------------- */

typedef enum ds_schedule { DS_WARMUP, DS_WARMUP_DECAY, DS_WARMUP_COSINE, DS_SCHEDULES } ds_schedule;

static const struct {
    const char *type;
    const char *lr_type;
    const char *carried[8];
} schedules[DS_SCHEDULES] = {
    [DS_WARMUP] = {"WarmupLR",
                   "constant",
                   {"warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "warmup_type"}},
    [DS_WARMUP_DECAY] = {"WarmupDecayLR",
                         "linear",
                         {"warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "warmup_type",
                          "total_num_steps"}},
    [DS_WARMUP_COSINE] = {"WarmupCosineLR",
                          "cosine",
                          {"warmup_min_ratio", "warmup_num_steps", "warmup_type", "total_num_steps",
                           "cos_min_ratio"}},
};

/* The rise: its length, its form and where it starts. */
static bool warmup_read(const mr_ds_section *params, ds_schedule schedule, uint64_t *steps) {
    const char *start = schedule == DS_WARMUP_COSINE ? "warmup_min_ratio" : "warmup_min_lr";
    const char *form = "log";
    double low = 0;
    *steps = 1000;
    bool good = mr_ds_read_count(params, "warmup_num_steps", 1, STEPS_MAX, steps);
    good &= mr_ds_read_text(params, "warmup_type", &form);
    good &= mr_ds_read_number(params, start, 0, false, LR_MAX, &low);
    if (!good)
        return false;
    if (strcasecmp(form, "auto") == 0) {
        mr_ds_refuse(params, "warmup_type", "log or linear");
        return false;
    }
    if (*steps < 2)
        *steps = 2; /* as the field does */
    if (strcmp(form, "linear") != 0)
        mr_ds_differ(params, "warmup_type",
                     "%s: DeepSpeed rises with the logarithm of the step; here the rise is linear",
                     mr_ds_section_has(params, "warmup_type") ? form : "not given, so log");
    if (low > 0)
        mr_ds_leave(params, start, "here the rise starts at 0");
    return true;
}

/* warmup_max_lr is what the field trains with, whatever the optimizer says. */
static bool peak_read(const mr_ds_section *params, ds_schedule schedule, ds_rate *rate) {
    bool given = mr_ds_section_has(params, "warmup_max_lr");
    double peak = schedule == DS_WARMUP && rate->known ? rate->lr : 1e-3;
    if (schedule == DS_WARMUP_COSINE)
        return true;
    if (!mr_ds_read_number(params, "warmup_max_lr", 0, true, LR_MAX, &peak))
        return false;
    if (!given && schedule == DS_WARMUP && !rate->known)
        return true;
    if (rate->known && rate->lr != peak)
        mr_ds_differ(params, "warmup_max_lr",
                     "the optimizer's lr is %g, but DeepSpeed trains with the scheduler's %g%s",
                     rate->lr, peak, given ? "" : ", its default");
    *rate = (ds_rate){.known = true, .lr = peak};
    mr_ds_report_set(params->report, "optimizer", "lr", json_real(peak));
    return true;
}

/* The product as a person would write it: 0.1 of 0.00015 is 0.000015. */
static double decimal_product(double a, double b) {
    char text[40];
    (void)snprintf(text, sizeof(text), "%.15g", a * b);
    return strtod(text, NULL);
}

/* Length and end of what comes after the rise. */
static bool decay_read(const mr_ds_section *params, ds_schedule schedule, uint64_t warmup,
                       const ds_rate *rate) {
    mr_ds_report *report = params->report;
    uint64_t total = 0;
    double ratio = 1e-4;
    if (schedule == DS_WARMUP) {
        mr_ds_report_miss(report, "lr_schedule.total_steps");
        return true;
    }
    if (!mr_ds_read_count(params, "total_num_steps", 1, STEPS_MAX, &total) ||
        !mr_ds_read_number(params, "cos_min_ratio", 0, false, 1, &ratio))
        return false;
    if (total == 0) {
        mr_ds_fail(params, "total_num_steps", "it is missing; %s needs the number of steps",
                   schedules[schedule].type);
        return false;
    }
    if (warmup > total) {
        mr_ds_fail(params, "warmup_num_steps",
                   "it is %llu%s; it must be at most total_num_steps, %llu",
                   (unsigned long long)warmup,
                   mr_ds_section_has(params, "warmup_num_steps") ? "" : " (the default)",
                   (unsigned long long)total);
        return false;
    }
    mr_ds_report_set(report, "lr_schedule", "total_steps", json_integer((json_int_t)total));
    if (schedule == DS_WARMUP_DECAY)
        mr_ds_report_set(report, "lr_schedule", "min_lr", json_real(0));
    else if (rate->known)
        mr_ds_report_set(report, "lr_schedule", "min_lr",
                         json_real(decimal_product(ratio, rate->lr)));
    else
        mr_ds_leave(params, "cos_min_ratio", "it is a part of a learning rate that is not known");
    return true;
}

static void schedule_read(const mr_ds_section *section, const mr_ds_section *params,
                          ds_schedule schedule, ds_rate *rate) {
    static const mr_ds_reason reasons[] = {
        {"last_batch_iteration", "a job goes on where its checkpoint stands"},
        {NULL, NULL},
    };
    mr_ds_report *report = params->report;
    uint64_t warmup = 0;
    if (!warmup_read(params, schedule, &warmup) || !peak_read(params, schedule, rate))
        return;
    mr_ds_report_set(report, "lr_schedule", "type", json_string(schedules[schedule].lr_type));
    mr_ds_report_set(report, "lr_schedule", "warmup_steps", json_integer((json_int_t)warmup));
    if (!decay_read(params, schedule, warmup, rate))
        return;
    mr_ds_differ(section, "type",
                 "DeepSpeed is up to two steps behind: its first two steps take the rate of the "
                 "start; here step s of a rise of w takes s/w of the rate");
    mr_ds_leave_rest(params, schedules[schedule].carried, reasons, "it is not known here");
}

static void scheduler_read(const mr_ds_section *file, ds_rate *rate) {
    static const char *const carried[] = {"type", "params", NULL};
    static const mr_ds_reason no_reasons[] = {{NULL, NULL}};
    mr_ds_section section = mr_ds_section_open(file, "scheduler");
    mr_ds_section params = mr_ds_section_open(&section, "params");
    const char *type = NULL;
    if (!mr_ds_read_text(&section, "type", &type))
        return;
    mr_ds_leave_rest(&section, carried, no_reasons, "it is not known here");
    for (ds_schedule i = 0; type != NULL && i < DS_SCHEDULES; i++) {
        if (strcmp(type, schedules[i].type) == 0) {
            schedule_read(&section, &params, i, rate);
            return;
        }
    }
    if (type != NULL && strcasecmp(type, "auto") == 0) {
        mr_ds_refuse(&section, "type", "WarmupLR, WarmupDecayLR or WarmupCosineLR");
        return;
    }
    if (type != NULL) {
        mr_ds_leave(&section, "type",
                    "a job file knows constant, linear and cosine after a linear rise");
        mr_ds_report_miss(file->report, "lr_schedule.type");
    } else {
        mr_ds_report_set(file->report, "lr_schedule", "type", json_string("constant"));
    }
    mr_ds_leave_rest(&params, carried + 2, no_reasons,
                     "it belongs to a schedule that is not there");
    mr_ds_report_miss(file->report, "lr_schedule.total_steps");
}

void mr_ds_optimizer_read(const mr_ds_section *file) {
    ds_rate rate = {0};
    optimizer_read(file, &rate);
    clipping_read(file);
    scheduler_read(file, &rate);
}
