/* SPDX-License-Identifier: Apache-2.0 */
#include "client/ds_config.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "daemon/base/limits.h"
#include "daemon/model/layer_pattern.h"

#define BATCH_MAX ((uint64_t)1 << 31)

/* Keys of the file itself that are carried over, or read for what they say. */
static const char *const file_carried[] = {
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "optimizer",
    "scheduler",
    "gradient_clipping",
    "fp16",
    "bf16",
    "pipeline",
    "zero_optimization",
    NULL,
};

#define OWN_VIEW "every step is printed and measured: millrace job watch, the daemons' status pages"
#define OWN_SUMS "sums over replicas are in fp32 and in rank order, always"
#define NO_MEMORY "what is kept and what is moved follows from the plan: millrace job plan"

/* Why the others have no counterpart. */
static const mr_ds_reason file_reasons[] = {
    {"zero_allow_untested_optimizer", "the state of every optimizer can be split"},
    {"zero_force_ds_cpu_optimizer", "nothing is offloaded"},
    {"amp", "precision is one word of the job file: fp32, bf16 or fp16"},
    {"torch_autocast", "precision is one word of the job file: fp32, bf16 or fp16"},
    {"data_types", "gradients are summed in fp32, always"},
    {"communication_data_type", OWN_SUMS},
    {"seq_parallel_communication_data_type", OWN_SUMS},
    {"prescale_gradients", OWN_SUMS},
    {"gradient_predivide_factor", OWN_SUMS},
    {"gradient_allreduce_op", "the loss is the mean over all tokens of a step, always"},
    {"managed_gradient_accumulation", "a step is always all microbatches of all replicas"},
    {"disable_allgather", OWN_SUMS},
    {"sparse_gradients", "gradients of embeddings are dense"},
    {"sparse_attention", "attention is dense"},
    {"steps_per_print", OWN_VIEW},
    {"wall_clock_breakdown", OWN_VIEW},
    {"memory_breakdown", OWN_VIEW},
    {"dump_state", OWN_VIEW},
    {"log_level", OWN_VIEW},
    {"timers", OWN_VIEW},
    {"flops_profiler", OWN_VIEW},
    {"comms_logger", OWN_VIEW},
    {"tensorboard", OWN_VIEW},
    {"csv_monitor", OWN_VIEW},
    {"wandb", OWN_VIEW},
    {"comet", OWN_VIEW},
    {"autotuning", "settings are never changed to try them; millrace job plan predicts"},
    {"elasticity", "the batch of a job does not depend on how many machines there are"},
    {"activation_checkpointing",
     "the job file has pipeline.activation_checkpoint_interval; nothing is split or offloaded"},
    {"aio", NO_MEMORY},
    {"nebula", "a job file's checkpoint section says where and how often to save"},
    {"datastates", "a job file's checkpoint section says where and how often to save"},
    {"checkpoint", "a job file's checkpoint section says where and how often to save"},
    {"load_universal_checkpoint", "every checkpoint loads at any number of stages"},
    {"use_node_local_storage", "all stages see one folder of checkpoints"},
    {"dataloader_drop_last", "what does not fill a sample at the data's end is left out, always"},
    {"data_efficiency", "samples come in one order, shuffled or not"},
    {"curriculum_learning", "every sample has batch.sequence_length tokens"},
    {"progressive_layer_drop", "all layers run in every step"},
    {"eigenvalue", "nothing is quantized by it"},
    {"compression_training", "weights are not pruned or quantized"},
    {"weight_quantization", "weights are not pruned or quantized"},
    {"quantize_training", "weights are not pruned or quantized"},
    {"hybrid_engine", "millrace generate draws from a checkpoint"},
    {"compile", "there is nothing to compile when a job starts"},
    {"graph_harvesting", "there is nothing to compile when a job starts"},
    {"tensor_parallel", "layers are cut by pipeline.topology.model"},
    {"sequence_parallel_size", "a sample is not cut over ranks"},
    {"use_data_before_expert_parallelism", "there are no layers of experts"},
    {"expert_parallel", "there are no layers of experts"},
    {"vocabulary_size", "the embedding's vocab says it"},
    {"bfloat16", "bf16 is given too and counts"},
    {NULL, NULL},
};

/* ---- batch ----------------------------------------------------------------------------------- */

typedef struct ds_batch {
    uint64_t train; /* 0: not given */
    uint64_t micro;
    uint64_t steps; /* of accumulation: microbatches */
    uint64_t replicas;
} ds_batch;

/* null stands for absent in these three. */
static bool batch_count(const mr_ds_section *file, const char *key, uint64_t maximum,
                        uint64_t *value) {
    if (json_is_null(mr_ds_section_get(file, key)))
        return true;
    return mr_ds_read_count(file, key, 1, maximum, value);
}

static bool batch_divide(const mr_ds_section *file, const ds_batch *batch, uint64_t by,
                         const char *what, uint64_t *out) {
    if (batch->train % by != 0) {
        mr_ds_fail(file, "train_batch_size", "it is %llu; it must be a multiple of %llu, %s",
                   (unsigned long long)batch->train, (unsigned long long)by, what);
        return false;
    }
    *out = batch->train / by;
    return true;
}

/* All three given: they say the width. */
static bool batch_check_product(const mr_ds_section *file, uint64_t wanted, ds_batch *batch) {
    if (!batch_divide(file, batch, batch->micro * batch->steps,
                      "train_micro_batch_size_per_gpu times gradient_accumulation_steps",
                      &batch->replicas))
        return false;
    if (wanted != 0 && wanted != batch->replicas)
        mr_ds_fail(file, "train_batch_size",
                   "it is %llu, which is %llu (microbatch) x %llu (accumulation) x %llu replicas, "
                   "but --replicas is %llu",
                   (unsigned long long)batch->train, (unsigned long long)batch->micro,
                   (unsigned long long)batch->steps, (unsigned long long)batch->replicas,
                   (unsigned long long)wanted);
    else if (batch->replicas > MR_STAGES_MAX)
        mr_ds_fail(file, "train_batch_size", "it asks for %llu replicas; there may be at most %d",
                   (unsigned long long)batch->replicas, MR_STAGES_MAX);
    else
        return true;
    return false;
}

/* What the field derives from two sizes or one; the width is not in the file. */
static bool batch_derive(const mr_ds_section *file, ds_batch *batch) {
    if (batch->train != 0 && batch->micro != 0)
        return batch_divide(file, batch, batch->micro * batch->replicas,
                            "train_micro_batch_size_per_gpu times the replicas", &batch->steps);
    if (batch->train != 0) {
        if (batch->steps == 0)
            batch->steps = 1;
        return batch_divide(file, batch, batch->steps * batch->replicas,
                            "gradient_accumulation_steps times the replicas", &batch->micro);
    }
    if (batch->steps == 0)
        batch->steps = 1;
    if (batch->micro != 0)
        return true;
    mr_ds_fail(file, "train_batch_size",
               "it is missing, and train_micro_batch_size_per_gpu too; one must be given");
    return false;
}

static bool batch_read(const mr_ds_section *file, uint64_t replicas, ds_batch *batch) {
    *batch = (ds_batch){.replicas = replicas != 0 ? replicas : 1};
    bool good = batch_count(file, "train_batch_size", BATCH_MAX, &batch->train);
    good &= batch_count(file, "train_micro_batch_size_per_gpu", MR_DIMENSION_MAX, &batch->micro);
    good &= batch_count(file, "gradient_accumulation_steps", MR_MICRO_BATCHES_MAX, &batch->steps);
    if (!good)
        return false;
    if (batch->train != 0 && batch->micro != 0 && batch->steps != 0)
        return batch_check_product(file, replicas, batch);
    if (!batch_derive(file, batch))
        return false;
    if (replicas == 0)
        mr_ds_differ(file, "train_batch_size",
                     "the file does not say how many replicas there are: one is assumed, with %llu "
                     "microbatches of %llu; --replicas N says otherwise",
                     (unsigned long long)batch->steps, (unsigned long long)batch->micro);
    if (batch->steps > MR_MICRO_BATCHES_MAX || batch->micro > MR_DIMENSION_MAX)
        mr_ds_fail(file, "train_batch_size",
                   "it makes %llu microbatches of %llu; there may be at most %d of at most %d",
                   (unsigned long long)batch->steps, (unsigned long long)batch->micro,
                   MR_MICRO_BATCHES_MAX, MR_DIMENSION_MAX);
    return true;
}

static void batch_write(const ds_batch *batch, mr_ds_report *report) {
    mr_ds_report_set(report, "batch", "micro_batch_size", json_integer((json_int_t)batch->micro));
    mr_ds_report_set(report, "batch", "micro_batches", json_integer((json_int_t)batch->steps));
    mr_ds_report_miss(report, "batch.sequence_length");
}

/* ---- pipeline -------------------------------------------------------------------------------- */

static const char *const pipeline_carried[] = {"stages", "partition",
                                               "activation_checkpoint_interval", NULL};
static const mr_ds_reason pipeline_reasons[] = {
    {"seed_layers",
     "DeepSpeed never reads it here, only its constructor's argument; a job file has "
     "model.seed_layers, true by default"},
    {"pipe_partitioned", "activations are not split over the model axis on a link"},
    {"grad_partitioned", "gradients are not split over the model axis on a link"},
    {"use_reentrant", "the runtime recomputes by itself"},
    {NULL, NULL},
};

/* The same word in both; profile is only promised there. */
static const char *const partition_words[] = {"uniform", "parameters", "profile"};

static void pipeline_read_partition(const mr_ds_section *section) {
    const char *method = NULL;
    if (!mr_ds_read_text(section, "partition", &method) || method == NULL)
        return;
    const char *word = NULL;
    for (size_t i = 0; i < sizeof(partition_words) / sizeof(partition_words[0]); i++)
        if (strcasecmp(method, partition_words[i]) == 0)
            word = partition_words[i];
    if (word != NULL) {
        mr_ds_report_set(section->report, "pipeline", "partition", json_string(word));
    } else if (strncasecmp(method, "type:", 5) == 0) {
        char text[MR_PATTERN_BYTES + 8];
        mr_status status = mr_layer_pattern_check(method + 5);
        if (!mr_status_is_ok(status)) {
            mr_ds_fail(section, "partition", "%s", status.text);
            return;
        }
        (void)snprintf(text, sizeof(text), "type:%s", method + 5); /* its length is checked */
        mr_ds_report_set(section->report, "pipeline", "partition", json_string(text));
        mr_ds_differ(section, "partition",
                     "DeepSpeed searches names of classes; here types and names of layers, and all "
                     "behind the first colon is the pattern");
    } else {
        mr_ds_leave(section, "partition",
                    "a job file knows parameters (the default), uniform, type:REGEX, profile, "
                    "weights and bounds");
        return;
    }
    mr_ds_differ(section, "partition",
                 "DeepSpeed never reads it here, only its constructor's argument");
}

static void pipeline_read(const mr_ds_section *file, uint64_t replicas) {
    mr_ds_report *report = file->report;
    mr_ds_section section = mr_ds_section_open(file, "pipeline");
    const char *word = json_string_value(mr_ds_section_get(&section, "stages"));
    uint64_t stages = 0;
    uint64_t interval = 0;
    if (word != NULL && strcmp(word, "auto") == 0)
        mr_ds_leave(&section, "stages",
                    "\"auto\" is its default: the number of stages is the constructor's argument");
    else if (!mr_ds_read_count(&section, "stages", 1, MR_STAGES_MAX, &stages))
        return;
    if (replicas > 1) {
        json_t *topology =
            json_pack("{s:I, s:I, s:i}", "pipe", (json_int_t)(stages > 0 ? stages : 1), "data",
                      (json_int_t)replicas, "model", 1);
        mr_ds_report_set(report, "pipeline", "topology", topology);
    } else if (stages > 0) {
        mr_ds_report_set(report, "pipeline", "stages", json_integer((json_int_t)stages));
    }
    if (stages == 0)
        mr_ds_report_miss(report, replicas > 1 ? "pipeline.topology.pipe" : "pipeline.stages");
    pipeline_read_partition(&section);
    if (mr_ds_read_count(&section, "activation_checkpoint_interval", 0, MR_LAYERS_MAX, &interval) &&
        interval > 0)
        mr_ds_report_set(report, "pipeline", "activation_checkpoint_interval",
                         json_integer((json_int_t)interval));
    mr_ds_leave_rest(&section, pipeline_carried, pipeline_reasons, "it is not known here");
}

void mr_ds_config_read(const json_t *root, uint64_t replicas, mr_ds_report *report) {
    mr_ds_section file = {.report = report, .object = root};
    ds_batch batch;
    if (!json_is_object(root)) {
        file.object = NULL;
        mr_ds_fail(&file, "the file", "it is no object; it must be one, with the settings by name");
        return;
    }
    mr_ds_report_miss(report, "schema");
    mr_ds_report_miss(report, "name");
    mr_ds_report_miss(report, "model");
    mr_ds_report_miss(report, "data");
    if (batch_read(&file, replicas, &batch))
        batch_write(&batch, report);
    mr_ds_optimizer_read(&file);
    mr_ds_precision_read(&file);
    pipeline_read(&file, batch.replicas);
    mr_ds_zero_read(&file);
    bool only_old_bf16 = mr_ds_section_has(&file, "bfloat16") && !mr_ds_section_has(&file, "bf16");
    const char *carried[sizeof(file_carried) / sizeof(file_carried[0]) + 1] = {0};
    memcpy(carried, file_carried, sizeof(file_carried));
    if (only_old_bf16)
        carried[sizeof(file_carried) / sizeof(file_carried[0]) - 1] = "bfloat16";
    mr_ds_leave_rest(&file, carried, file_reasons, "it is not known here");
}
