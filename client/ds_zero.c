/* SPDX-License-Identifier: Apache-2.0 */
/* zero_optimization: stage 0 and 1 are pipeline.zero_stage, and the other keys say how the field
 * goes about it. Stages 2 and 3 are refused, as the field refuses them under a pipeline (reference:
 * deepspeed.md 82): a job that was sized for split gradients or weights would not fit here. */
#include "client/ds_config.h"
#include "daemon/base/limits.h"

enum { ZERO_STAGE_FIELD_MAX = 3 };

#define ZERO_SUMS "gradients are summed a parameter at a time, while others are still computed"
#define ZERO_SHARE "new weights are shared once a step, in one piece"
#define ZERO_OFFLOAD "parameters and optimizer state stay on the device"
#define ZERO_HIGHER "it belongs to stage 2 or 3"

static const mr_ds_reason zero_reasons[] = {
    {"allgather_partitions", ZERO_SHARE},
    {"allgather_bucket_size", ZERO_SHARE},
    {"use_multi_rank_bucket_allreduce", ZERO_SUMS},
    {"reduce_scatter", "every replica has the whole sums: the norm is added up from them"},
    {"reduce_bucket_size", ZERO_SUMS},
    {"overlap_comm", "sums overlap with the computation, always"},
    {"contiguous_gradients", "gradients lie in one buffer, always"},
    {"round_robin_gradients", ZERO_SUMS},
    {"offload_param", ZERO_OFFLOAD},
    {"offload_optimizer", ZERO_OFFLOAD},
    {"cpu_offload", ZERO_OFFLOAD},
    {"cpu_offload_params", ZERO_OFFLOAD},
    {"elastic_checkpoint", "every checkpoint loads at any number of replicas"},
    {"load_from_fp32_weights", "a checkpoint's weights are the fp32 masters, always"},
    {"ignore_unused_parameters", "every parameter of a layer is used"},
    {"legacy_stage1", "it chooses an implementation"},
    {"sub_group_size", ZERO_HIGHER},
    {"memory_efficient_linear", ZERO_HIGHER},
    {"stage3_prefetch_bucket_size", ZERO_HIGHER},
    {"stage3_param_persistence_threshold", ZERO_HIGHER},
    {"stage3_max_live_parameters", ZERO_HIGHER},
    {"stage3_max_reuse_distance", ZERO_HIGHER},
    {"stage3_gather_16bit_weights_on_model_save", ZERO_HIGHER},
    {NULL, NULL},
};

void mr_ds_zero_read(const mr_ds_section *file) {
    static const char *const carried[] = {"stage", NULL};
    mr_ds_section section = mr_ds_section_open(file, "zero_optimization");
    uint64_t stage = 0;
    if (!mr_ds_read_count(&section, "stage", 0, ZERO_STAGE_FIELD_MAX, &stage))
        return;
    if (stage > 1) {
        mr_ds_refuse(&section, "stage",
                     stage == 2 ? "0, or 1 (optimizer state): gradients are not split"
                                : "0, or 1 (optimizer state): weights are not split");
        return;
    }
    if (stage == 1)
        mr_ds_report_set(file->report, "pipeline", "zero_stage", json_integer(1));
    mr_ds_leave_rest(&section, carried, zero_reasons, "it is not known here");
}
