/* SPDX-License-Identifier: Apache-2.0 */
/* Each stage has its own clock and each edge remembers when its messages arrive. Since the k-th
 * receive of an edge takes the k-th message (verify.h), a stage that comes to its k-th receive only
 * needs to know whether the k-th transfer has an end yet. Stages are moved as far as they go, in
 * turn; times do not depend on the turn, because a stage's clock follows from its own list and the
 * arrivals alone. */
#include "daemon/plan/simulate.h"

#include "daemon/base/alloc.h"

/* Transfers that leave one stage, of one kind. */
typedef struct simulated_edge {
    double *arrivals;
    size_t sent;
    size_t received;
    double cost;
} simulated_edge;

typedef struct simulator {
    const mr_schedule *schedules;
    const mr_stage_cost *costs;
    size_t stage_count;
    double *arrivals;           /* room of all edges */
    simulated_edge *activation; /* per sending stage */
    simulated_edge *gradient;   /* per sending stage */
    double *clocks;
    double *work;
    size_t *places;
} simulator;

static double instruction_cost(const mr_stage_cost *cost, mr_opcode opcode) {
    switch (opcode) {
    case MR_OPCODE_FORWARD:
        return cost->forward;
    case MR_OPCODE_BACKWARD:
        return cost->backward_input + cost->backward_weight;
    case MR_OPCODE_BACKWARD_INPUT:
        return cost->backward_input;
    case MR_OPCODE_BACKWARD_WEIGHT:
        return cost->backward_weight;
    default:
        return 0.0;
    }
}

static void edge_send(simulated_edge *edge, double now) {
    double start = now;
    if (edge->sent > 0 && edge->arrivals[edge->sent - 1] > start)
        start = edge->arrivals[edge->sent - 1];
    edge->arrivals[edge->sent++] = start + edge->cost;
}

/* Takes the next message at clock; false when it was not sent yet. */
static bool edge_receive(simulated_edge *edge, double *clock) {
    if (edge->received == edge->sent)
        return false;
    double arrival = edge->arrivals[edge->received++];
    if (arrival > *clock)
        *clock = arrival;
    return true;
}

/* Moves one stage as far as it goes; did it move? */
static bool simulate_stage(simulator *sim, size_t stage) {
    const mr_schedule *list = &sim->schedules[stage];
    size_t previous = stage == 0 ? sim->stage_count - 1 : stage - 1;
    size_t next = stage + 1 == sim->stage_count ? 0 : stage + 1;
    size_t start = sim->places[stage];
    double *clock = &sim->clocks[stage];
    for (size_t *place = &sim->places[stage]; *place < list->count; (*place)++) {
        mr_opcode opcode = list->instructions[*place].opcode;
        if (opcode == MR_OPCODE_SEND_ACTIVATION)
            edge_send(&sim->activation[stage], *clock);
        else if (opcode == MR_OPCODE_SEND_GRADIENT)
            edge_send(&sim->gradient[stage], *clock);
        else if (opcode == MR_OPCODE_RECEIVE_ACTIVATION) {
            if (!edge_receive(&sim->activation[previous], clock))
                break;
        } else if (opcode == MR_OPCODE_RECEIVE_GRADIENT) {
            if (!edge_receive(&sim->gradient[next], clock))
                break;
        }
        double cost = instruction_cost(&sim->costs[stage], opcode);
        *clock += cost;
        sim->work[stage] += cost;
    }
    return sim->places[stage] > start;
}

static void simulate_all(simulator *sim, const mr_stage_margin *margins,
                         mr_simulation *out_simulation) {
    for (size_t stage = 0; margins != NULL && stage < sim->stage_count; stage++)
        sim->clocks[stage] = margins[stage].before;
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t stage = 0; stage < sim->stage_count; stage++)
            moved = simulate_stage(sim, stage) || moved;
    }
    mr_simulation result = {0};
    for (size_t stage = 0; stage < sim->stage_count; stage++) {
        MR_ASSERT(sim->places[stage] == sim->schedules[stage].count); /* mr_verify accepted them */
        double end = sim->clocks[stage] + (margins == NULL ? 0.0 : margins[stage].after);
        if (end > result.makespan)
            result.makespan = end;
        result.work += sim->work[stage] / (double)sim->stage_count;
    }
    if (result.makespan > 0.0)
        result.bubble = (result.makespan - result.work) / result.makespan;
    *out_simulation = result;
}

mr_status mr_simulate(const mr_schedule *schedules, const mr_verify_shape *shape,
                      const mr_stage_cost *costs, mr_simulation *out_simulation) {
    return mr_simulate_step(schedules, shape, costs, NULL, out_simulation);
}

mr_status mr_simulate_step(const mr_schedule *schedules, const mr_verify_shape *shape,
                           const mr_stage_cost *costs, const mr_stage_margin *margins,
                           mr_simulation *out_simulation) {
    size_t stages = shape->stage_count;
    size_t messages = shape->micro_batches * shape->chunks; /* most of one edge and kind */
    simulator sim = {.schedules = schedules, .costs = costs, .stage_count = stages};
    mr_status status = MR_OK;
    sim.arrivals = mr_alloc_array(2 * stages * messages, sizeof(*sim.arrivals));
    sim.activation = mr_alloc_array(stages, sizeof(*sim.activation));
    sim.gradient = mr_alloc_array(stages, sizeof(*sim.gradient));
    sim.clocks = mr_alloc_array(stages, sizeof(*sim.clocks));
    sim.work = mr_alloc_array(stages, sizeof(*sim.work));
    sim.places = mr_alloc_array(stages, sizeof(*sim.places));
    if (sim.arrivals == NULL || sim.activation == NULL || sim.gradient == NULL ||
        sim.clocks == NULL || sim.work == NULL || sim.places == NULL) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory to simulate %zu stages", stages);
        goto out;
    }
    for (size_t stage = 0; stage < stages; stage++) {
        sim.activation[stage].arrivals = sim.arrivals + 2 * stage * messages;
        sim.activation[stage].cost = costs[stage].send_activation;
        sim.gradient[stage].arrivals = sim.activation[stage].arrivals + messages;
        sim.gradient[stage].cost = costs[stage].send_gradient;
    }
    simulate_all(&sim, margins, out_simulation);
out:
    mr_free(sim.places);
    mr_free(sim.work);
    mr_free(sim.clocks);
    mr_free(sim.gradient);
    mr_free(sim.activation);
    mr_free(sim.arrivals);
    return status;
}
