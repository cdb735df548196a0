/* SPDX-License-Identifier: Apache-2.0 */
/* The judge is the simulator: a cut is as good as the step time that its schedule's lists give with
 * its costs (profile_cost.h). So every schedule is cut for what it is, and the prediction that is
 * shown is the number that was minimised. How many cuts are judged is bounded:
 *
 * Few cuts, C(n-1, p-1) of them: all. The answer is exact.
 *
 * Many cuts: start from the best of three, then walk.
 *   uniform, parameters    so that the answer is never worse than these
 *   bottleneck             the smallest possible largest F + I + W of a stage. For a bound B each
 *                          stage in turn takes all that B and its memory allow; since a range costs
 *                          no less when it grows, no other cut within B reaches further, whatever
 *                          each device's speed (the greedy of partition.c, with a cost of its own
 *                          for each stage). Bisection over B. For 1F1B and GPipe of p stages and
 *                          m microbatches the step is about sum C + (m - 1) max C, C = F + I + W,
 *                          so the smallest max C is near the optimum when m is not small
 *                          (reference: schedules.md 2.1, 2.2 with unequal stages).
 *   walk                   single bounds, and all bounds from one on together, move by a stride
 *                          that halves to 1; a move that the judge likes better is kept. It ends at
 *                          a local optimum or when the budget of work is used up.
 *
 * Memory is that of stage_plan.c, to the byte; the greedy uses an estimate of it, and is asked
 * again with other margins when the judge refuses what it gave. */
#include "daemon/plan/profile_cut.h"

#include <math.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/partition.h"
#include "daemon/plan/profile_cost.h"
#include "daemon/plan/stage_plan.h"
#include "daemon/plan/verify.h"

/* Units of work are instructions replayed and layers summed: some nanoseconds each. */
#define CUT_TRY_ALL_WORK 2e7
#define CUT_WALK_WORK 6e7
enum { CUT_BISECTIONS = 40 };

typedef struct cut_search {
    mr_plan *plan;
    mr_profile_costs costs;
    mr_verify_shape shape;
    size_t layers;
    size_t stages;
    mr_stage_cost *stage_costs; /* [stages], of trial */
    mr_stage_margin *margins;
    size_t *trial; /* [stages + 1] */
    size_t *best;
    double best_seconds; /* INFINITY: none yet */
    double work_left;
    double trial_work;
    double *fixed_bytes; /* [layers]: estimate of weights, gradients, optimizer */
    double *slot_bytes;  /* [layers]: of one microbatch in flight */
    /* the cut that comes nearest to fitting, for the error */
    double short_bytes; /* INFINITY: none was refused */
    size_t short_stage;
    size_t short_needed;
} cut_search;

/* ---- judging --------------------------------------------------------------------------------- */

static size_t stage_bytes(const mr_stage_plan *stage) {
    return stage->weights_bytes + stage->gradients_bytes + stage->optimizer_bytes +
           stage->activations_bytes;
}

/* Does the trial fit its devices? Keeps the nearest miss. */
static mr_status cut_fits(cut_search *search, bool *out_fits) {
    mr_plan *plan = search->plan;
    double worst = 0.0;
    size_t worst_stage = 0;
    memcpy(plan->bounds, search->trial, (search->stages + 1) * sizeof(*plan->bounds));
    MR_TRY(mr_stage_plan_fill(plan));
    for (size_t stage = 0; stage < search->stages; stage++) {
        size_t capacity = mr_profile_costs_capacity(&search->costs, stage);
        double over = (double)stage_bytes(&plan->stages[stage]) - (double)capacity;
        if (over > worst) {
            worst = over;
            worst_stage = stage;
        }
    }
    *out_fits = worst <= 0.0;
    if (worst > 0.0 && worst < search->short_bytes) {
        search->short_bytes = worst;
        search->short_stage = worst_stage;
        search->short_needed = stage_bytes(&plan->stages[worst_stage]);
    }
    return MR_OK;
}

static mr_status cut_simulate(cut_search *search, double *out_seconds) {
    mr_simulation simulation = {0};
    for (size_t stage = 0; stage < search->stages; stage++)
        mr_profile_costs_stage(&search->costs, stage, search->trial[stage],
                               search->trial[stage + 1], &search->stage_costs[stage],
                               &search->margins[stage]);
    MR_TRY(mr_simulate_step(search->plan->schedules, &search->shape, search->stage_costs,
                            search->margins, &simulation));
    *out_seconds = simulation.makespan;
    return MR_OK;
}

/* Keeps the trial when it is faster than the best one and fits. */
static mr_status cut_judge(cut_search *search, bool *out_kept) {
    double seconds = 0.0;
    bool fits = false;
    *out_kept = false;
    search->work_left -= search->trial_work;
    MR_TRY(cut_simulate(search, &seconds));
    if (seconds >= search->best_seconds)
        return MR_OK;
    MR_TRY(cut_fits(search, &fits));
    if (!fits)
        return MR_OK;
    search->best_seconds = seconds;
    memcpy(search->best, search->trial, (search->stages + 1) * sizeof(*search->best));
    *out_kept = true;
    return MR_OK;
}

/* ---- all cuts -------------------------------------------------------------------------------- */

/* How many cuts there are; stops counting above most. */
static double cut_count(size_t layers, size_t stages, double most) {
    double count = 1.0;
    for (size_t i = 1; i < stages && count <= most; i++)
        count = count * (double)(layers - i) / (double)i;
    return count;
}

/* The next trial in order, from the one where the first stages own the most; false after the last,
 * where they own one layer each. */
static bool cut_next(cut_search *search) {
    size_t *bounds = search->trial;
    for (size_t i = search->stages - 1; i > 0; i--) {
        if (bounds[i] <= bounds[i - 1] + 1)
            continue;
        bounds[i]--;
        for (size_t after = i + 1; after < search->stages; after++)
            bounds[after] = search->layers - search->stages + after;
        return true;
    }
    return false;
}

static mr_status cut_try_all(cut_search *search) {
    bool kept = false;
    for (size_t i = 1; i < search->stages; i++)
        search->trial[i] = search->layers - search->stages + i;
    do
        MR_TRY(cut_judge(search, &kept));
    while (cut_next(search));
    return MR_OK;
}

/* ---- starts ---------------------------------------------------------------------------------- */

static mr_status cut_try_parameters(cut_search *search) {
    bool kept = false;
    double *weights = mr_alloc_array(search->layers, sizeof(*weights));
    if (weights == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to cut %zu layers", search->layers);
    for (size_t layer = 0; layer < search->layers; layer++)
        weights[layer] = (double)search->plan->layers[layer].parameter_elements;
    mr_status status =
        mr_partition_balanced(weights, search->layers, search->stages, search->trial);
    mr_free(weights);
    MR_TRY(status);
    return cut_judge(search, &kept);
}

/* How far stage reaches from first with its busy time within bound and its estimated memory, times
 * margin, within its capacity. first where not even one layer fits. */
static size_t cut_reach(const cut_search *search, size_t stage, size_t first, double bound,
                        double margin) {
    double capacity = (double)mr_profile_costs_capacity(&search->costs, stage);
    double peak = (double)search->plan->stages[stage].peak_in_flight;
    size_t most = search->layers - (search->stages - stage - 1); /* a layer for each one after */
    double seconds = 0.0;
    double bytes = 0.0;
    size_t end = first;
    for (; end < most; end++) {
        seconds += mr_profile_costs_layer(&search->costs, stage, end);
        bytes += search->fixed_bytes[end] + peak * search->slot_bytes[end];
        if (seconds > bound || bytes * margin > capacity)
            break;
    }
    return end;
}

/* Cuts trial within bound; false: it needs more stages. */
static bool cut_greedy(cut_search *search, double bound, double margin) {
    for (size_t stage = 0; stage < search->stages; stage++) {
        size_t first = search->trial[stage];
        size_t end = cut_reach(search, stage, first, bound, margin);
        if (end == first)
            return false;
        search->trial[stage + 1] = end;
    }
    return search->trial[search->stages] == search->layers;
}

static mr_status cut_try_bottleneck(cut_search *search, double margin) {
    double low = 0.0;
    double high = 0.0;
    bool kept = false;
    for (size_t layer = 0; layer < search->layers; layer++) {
        double slowest = 0.0;
        for (size_t stage = 0; stage < search->stages; stage++)
            slowest = fmax(slowest, mr_profile_costs_layer(&search->costs, stage, layer));
        high += slowest;
    }
    if (!cut_greedy(search, high, margin))
        return MR_OK;
    for (int i = 0; i < CUT_BISECTIONS; i++) {
        double middle = low + (high - low) / 2;
        if (cut_greedy(search, middle, margin))
            high = middle;
        else
            low = middle;
    }
    bool again = cut_greedy(search, high, margin);
    MR_ASSERT(again);
    return cut_judge(search, &kept);
}

/* ---- walk ------------------------------------------------------------------------------------ */

static bool cut_is_valid(const cut_search *search) {
    for (size_t i = 0; i < search->stages; i++)
        if (search->trial[i] >= search->trial[i + 1])
            return false;
    return search->trial[search->stages] == search->layers;
}

/* Moves bounds [from, to) of the best cut by stride, up or down, and judges. */
static mr_status cut_move(cut_search *search, size_t from, size_t to, size_t stride, bool up,
                          bool *out_kept) {
    *out_kept = false;
    memcpy(search->trial, search->best, (search->stages + 1) * sizeof(*search->trial));
    for (size_t i = from; i < to; i++) {
        if (!up && search->trial[i] < stride)
            return MR_OK;
        search->trial[i] = up ? search->trial[i] + stride : search->trial[i] - stride;
    }
    return cut_is_valid(search) ? cut_judge(search, out_kept) : MR_OK;
}

/* Every move of one stride once; did any help? */
static mr_status cut_walk_round(cut_search *search, size_t stride, bool *out_moved) {
    *out_moved = false;
    for (size_t i = 1; i < search->stages && search->work_left > 0.0; i++) {
        for (int move = 0; move < 4; move++) {
            bool kept = false;
            size_t to = move < 2 ? i + 1 : search->stages;
            MR_TRY(cut_move(search, i, to, stride, move % 2 == 0, &kept));
            *out_moved = *out_moved || kept;
        }
    }
    return MR_OK;
}

static mr_status cut_walk(cut_search *search) {
    size_t stride = search->layers / search->stages / 2;
    for (stride = stride == 0 ? 1 : stride; stride > 0 && search->work_left > 0.0;) {
        bool moved = false;
        MR_TRY(cut_walk_round(search, stride, &moved));
        if (!moved)
            stride /= 2;
    }
    return MR_OK;
}

/* ---- the search ------------------------------------------------------------------------------ */

/* What the greedy takes a layer's memory to be: all that stage_plan.c may count for it. */
static void cut_estimate_bytes(cut_search *search) {
    const mr_job *job = search->plan->job;
    double state = 4.0 * (double)mr_optimizer_states_of(job->optimizer, job->momentum).count;
    for (size_t layer = 0; layer < search->layers; layer++) {
        const mr_layer_description *description = &search->plan->layers[layer];
        size_t output = 0;
        if (!mr_shape_bytes(&description->output, &output))
            output = SIZE_MAX;
        search->fixed_bytes[layer] = (double)description->parameter_elements * (8.0 + state);
        search->slot_bytes[layer] = (double)output + (double)description->saved_bytes;
    }
}

static mr_status cut_run(cut_search *search) {
    static const double margins[] = {1.0, 1.15, 1.4, 0.85, 0.7, 0.5, 0.3};
    double all = cut_count(search->layers, search->stages, CUT_TRY_ALL_WORK);
    bool kept = false;
    if (all * search->trial_work <= CUT_TRY_ALL_WORK)
        return cut_try_all(search);
    mr_partition_uniform(search->layers, search->stages, search->trial);
    MR_TRY(cut_judge(search, &kept));
    MR_TRY(cut_try_parameters(search));
    cut_estimate_bytes(search);
    MR_TRY(cut_try_bottleneck(search, margins[0]));
    for (size_t i = 1; i < sizeof(margins) / sizeof(margins[0]) && isinf(search->best_seconds); i++)
        MR_TRY(cut_try_bottleneck(search, margins[i]));
    return isinf(search->best_seconds) ? MR_OK : cut_walk(search);
}

static mr_status cut_init(cut_search *search, mr_plan *plan, const mr_profile *profile) {
    size_t stages = plan->stage_count;
    size_t layers = plan->job->layer_count;
    double instructions = 0.0;
    for (size_t stage = 0; stage < stages; stage++)
        instructions += (double)plan->schedules[stage].count;
    *search = (cut_search){
        .plan = plan,
        .shape = {.stage_count = stages,
                  .micro_batches = plan->job->micro_batches,
                  .chunks = plan->job->chunks,
                  .training = !plan->inference},
        .layers = layers,
        .stages = stages,
        .stage_costs = mr_alloc_array(stages, sizeof(*search->stage_costs)),
        .margins = mr_alloc_array(stages, sizeof(*search->margins)),
        .trial = mr_alloc_array(stages + 1, sizeof(*search->trial)),
        .best = mr_alloc_array(stages + 1, sizeof(*search->best)),
        .best_seconds = INFINITY,
        .work_left = CUT_WALK_WORK,
        .trial_work = instructions + (double)layers,
        .fixed_bytes = mr_alloc_array(layers, sizeof(*search->fixed_bytes)),
        .slot_bytes = mr_alloc_array(layers, sizeof(*search->slot_bytes)),
        .short_bytes = INFINITY,
    };
    MR_TRY(mr_profile_costs_init(&search->costs, plan, profile));
    if (search->stage_costs == NULL || search->margins == NULL || search->trial == NULL ||
        search->best == NULL || search->fixed_bytes == NULL || search->slot_bytes == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to cut %zu layers", layers);
    search->trial[stages] = layers;
    return MR_OK;
}

static void cut_deinit(cut_search *search) {
    mr_profile_costs_deinit(&search->costs);
    mr_free(search->slot_bytes);
    mr_free(search->fixed_bytes);
    mr_free(search->best);
    mr_free(search->trial);
    mr_free(search->margins);
    mr_free(search->stage_costs);
}

mr_status mr_profile_cut(mr_plan *plan, const mr_profile *profile) {
    MR_TRY(mr_profile_check(profile, plan->job));
    cut_search search;
    mr_status status = cut_init(&search, plan, profile);
    if (mr_status_is_ok(status))
        status = cut_run(&search);
    if (mr_status_is_ok(status) && isinf(search.best_seconds))
        status = MR_ERROR(RESOURCE_EXHAUSTED,
                          "no cut into %zu stages fits its devices: stage %zu of the one that "
                          "comes nearest needs %zu bytes and its device has %zu",
                          search.stages, search.short_stage, search.short_needed,
                          mr_profile_costs_capacity(&search.costs, search.short_stage));
    if (mr_status_is_ok(status))
        memcpy(plan->bounds, search.best, (search.stages + 1) * sizeof(*plan->bounds));
    cut_deinit(&search);
    return status;
}

mr_status mr_profile_predict(mr_plan *plan, const mr_profile *profile) {
    MR_TRY(mr_profile_check(profile, plan->job));
    cut_search search;
    mr_simulation simulation = {0};
    mr_status status = MR_OK;
    MR_TRY_GOTO(status, cut_init(&search, plan, profile), out);
    memcpy(search.trial, plan->bounds, (search.stages + 1) * sizeof(*plan->bounds));
    MR_TRY_GOTO(status, cut_simulate(&search, &plan->step_seconds), out);
    MR_TRY_GOTO(status,
                mr_simulate(plan->schedules, &search.shape, search.stage_costs, &simulation), out);
    plan->bubble_predicted = simulation.bubble;
    for (size_t stage = 0; stage < search.stages; stage++) {
        const mr_stage_cost *cost = &search.stage_costs[stage];
        double one = cost->forward;
        if (!plan->inference)
            one += cost->backward_input + cost->backward_weight;
        plan->stages[stage].busy_seconds = one * (double)plan->job->micro_batches;
    }
out:
    cut_deinit(&search);
    return status;
}
