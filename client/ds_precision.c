/* SPDX-License-Identifier: Apache-2.0 */
/* The sections fp16 and bf16. Defaults of the factor of fp16 gradients are the same in both worlds,
 * so only what is given is carried. Reference: ecosystem.md 5.6. */
#include <math.h>

#include "client/ds_config.h"

enum { PRECISION_POWER_MAX = 40 }; /* of the job file's greatest factor */

static const mr_ds_reason fp16_reasons[] = {
    {"consecutive_hysteresis", "the factor's patience comes back when it doubles"},
    {"auto_cast", "inputs are cast as the precision wants them"},
    {"fused_mode", "it chooses an implementation"},
    {"fp16_master_weights_and_grads", "master weights are fp32, always"},
    {NULL, NULL},
};
static const mr_ds_reason bf16_reasons[] = {
    {"immediate_grad_update", "gradients are added up in fp32 as they come"},
    {"check_grad_overflow", "a loss or norm that is not finite ends the step with an error"},
    {"bf16_master_weights_and_grads", "master weights are fp32, always"},
    {"bf16_optimizer_states", "optimizer state is fp32, always"},
    {NULL, NULL},
};

/* Is the section switched on? What it says besides has no effect where it is not. */
static bool precision_enabled(const mr_ds_section *section) {
    static const mr_ds_reason none[] = {{NULL, NULL}};
    static const char *const carried[] = {"enabled", NULL};
    bool enabled = false;
    if (!mr_ds_read_bool(section, "enabled", &enabled))
        return false;
    if (!enabled)
        mr_ds_leave_rest(section, carried, none, "enabled is false, so it has no effect");
    return enabled;
}

static void scale_set(const mr_ds_section *section, const char *key, json_t *owned_value) {
    mr_ds_report_set(section->report, "loss_scale", key, owned_value);
}

static void scale_read_count(const mr_ds_section *section, const char *key, const char *ours) {
    uint64_t count = 0;
    if (mr_ds_section_has(section, key) && mr_ds_read_count(section, key, 1, UINT32_MAX, &count))
        scale_set(section, ours, json_integer((json_int_t)count));
}

static void scale_read(const mr_ds_section *section) {
    const double most = ldexp(1, PRECISION_POWER_MAX);
    double fixed = 0;
    double least = 0;
    uint64_t power = 0;
    /* 0 means a factor that follows the gradients, which is the default here, too */
    if (mr_ds_read_number(section, "loss_scale", 0, false, most, &fixed) && fixed > 0)
        scale_set(section, "fixed", json_real(fixed));
    if (mr_ds_section_has(section, "initial_scale_power") &&
        mr_ds_read_count(section, "initial_scale_power", 0, PRECISION_POWER_MAX, &power))
        scale_set(section, "initial", json_real(ldexp(1, (int)power)));
    scale_read_count(section, "loss_scale_window", "window");
    scale_read_count(section, "hysteresis", "hysteresis");
    if (mr_ds_section_has(section, "min_loss_scale") &&
        mr_ds_read_number(section, "min_loss_scale", 0, true, most, &least))
        scale_set(section, "min", json_real(least));
}

void mr_ds_precision_read(const mr_ds_section *file) {
    static const char *const fp16_carried[] = {
        "enabled",    "loss_scale",     "initial_scale_power", "loss_scale_window",
        "hysteresis", "min_loss_scale", NULL};
    static const char *const bf16_carried[] = {"enabled", NULL};
    const char *brain = mr_ds_section_has(file, "bf16") ? "bf16" : "bfloat16";
    mr_ds_section half = mr_ds_section_open(file, "fp16");
    mr_ds_section brain_half = mr_ds_section_open(file, brain);
    bool fp16 = precision_enabled(&half);
    bool bf16 = precision_enabled(&brain_half);
    if (fp16 && bf16)
        mr_ds_fail(file, "fp16", "it and %s are both enabled; one must be", brain);
    json_t *word = json_string(fp16 ? "fp16" : bf16 ? "bf16" : "fp32");
    file->report->exhausted |= json_object_set_new(file->report->job, "precision", word) != 0;
    if (fp16) {
        scale_read(&half);
        mr_ds_leave_rest(&half, fp16_carried, fp16_reasons, "it is not known here");
    }
    if (bf16)
        mr_ds_leave_rest(&brain_half, bf16_carried, bf16_reasons, "it is not known here");
}
