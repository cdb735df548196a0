/* SPDX-License-Identifier: Apache-2.0 */
#include "client/progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "client/render.h"
#include "client/terminal.h"
#include "daemon/base/clock.h"
#include "daemon/base/limits.h"

enum {
    PROGRESS_NUMBER_BYTES = 40,
    PROGRESS_SIDES_BYTES =
        (MR_SIDE_LOSSES_MAX + 1) * (MR_SIDE_LOSS_NAME_BYTES + PROGRESS_NUMBER_BYTES + 8),
};

/* A JSON number of 9 significant digits, which is enough to tell any two floats apart; null where
 * the value is not finite. */
static const char *progress_number(double value, char out[PROGRESS_NUMBER_BYTES]) {
    if (isfinite(value))
        snprintf(out, PROGRESS_NUMBER_BYTES, "%.9g", value);
    else
        snprintf(out, PROGRESS_NUMBER_BYTES, "null");
    return out;
}

/* ",\"total_loss\":..,\"side_losses\":{name: value}"; nothing where there are none. Names are the
 * coordinator's, letters and digits only; one that is longer than any of ours ends the list. */
static const char *progress_sides(const Millrace__V1__StepResult *step,
                                  char out[PROGRESS_SIDES_BYTES]) {
    char number[PROGRESS_NUMBER_BYTES];
    out[0] = '\0';
    if (step->n_side_losses == 0)
        return out;
    size_t at = (size_t)snprintf(out, PROGRESS_SIDES_BYTES, ",\"total_loss\":%s,\"side_losses\":{",
                                 progress_number(step->total_loss, number));
    for (size_t i = 0; i < step->n_side_losses && i < MR_SIDE_LOSSES_MAX &&
                       strlen(step->side_losses[i]->name) < MR_SIDE_LOSS_NAME_BYTES;
         i++)
        at += (size_t)snprintf(out + at, PROGRESS_SIDES_BYTES - at, "%s\"%s\":%s",
                               i > 0 ? "," : "", step->side_losses[i]->name,
                               progress_number(step->side_losses[i]->value, number));
    (void)snprintf(out + at, PROGRESS_SIDES_BYTES - at, "}");
    return out;
}

void mr_progress_json(const Millrace__V1__StepResult *step, char *out, size_t bytes) {
    char n[7][PROGRESS_NUMBER_BYTES];
    char scale[2 * PROGRESS_NUMBER_BYTES] = "";
    char sides[PROGRESS_SIDES_BYTES];
    if (step->loss_scale > 0) /* fp16 */
        snprintf(scale, sizeof(scale), ",\"loss_scale\":%s,\"skipped\":%s",
                 progress_number(step->loss_scale, n[6]), step->skipped ? "true" : "false");
    snprintf(out, bytes,
             "{\"step\":%" PRIu64 ",\"loss\":%s,\"grad_norm\":%s,\"lr\":%s,\"tokens\":%" PRIu64
             ",\"tokens_per_second\":%s,\"bubble\":%s,\"step_seconds\":%s%s%s}",
             step->step, progress_number(step->loss, n[0]),
             progress_number(step->gradient_norm, n[1]), progress_number(step->learning_rate, n[2]),
             step->tokens, progress_number(step->tokens_per_second, n[3]),
             progress_number(step->bubble, n[4]), progress_number(step->step_seconds, n[5]), scale,
             progress_sides(step, sides));
}

/* "3h31m", "4m05s", "12s". */
static void progress_duration(double seconds, char *out, size_t bytes) {
    if (!(seconds >= 0 && seconds < 1e9)) {
        snprintf(out, bytes, "?");
        return;
    }
    uint64_t whole = (uint64_t)(seconds + 0.5);
    if (whole >= 3600)
        snprintf(out, bytes, "%" PRIu64 "h%02" PRIu64 "m", whole / 3600, whole % 3600 / 60);
    else if (whole >= 60)
        snprintf(out, bytes, "%" PRIu64 "m%02" PRIu64 "s", whole / 60, whole % 60);
    else
        snprintf(out, bytes, "%" PRIu64 "s", whole);
}

void mr_progress_line(const Millrace__V1__StepResult *step, uint64_t total_steps, double seconds,
                      char *out, size_t bytes) {
    char rate[32];
    char total[32] = "";
    char eta[32];
    uint64_t left = total_steps > step->step ? total_steps - step->step : 0;
    if (step->n_side_losses > 0)
        snprintf(total, sizeof(total), "  total %.4f", step->total_loss);
    mr_render_count(step->tokens_per_second, rate, sizeof(rate));
    progress_duration((double)left * seconds, eta, sizeof(eta));
    snprintf(out, bytes,
             "step %" PRIu64 "/%" PRIu64 "  loss %.4f%s  |g| %.2f  lr %.1e  %s tok/s  bubble %.0f%%"
             "  ETA %s%s",
             step->step, total_steps, step->loss, total,
             step->gradient_norm, step->learning_rate, rate,
             step->bubble * 100, eta, step->skipped ? "  skipped: overflow" : "");
}

void mr_progress_step(mr_progress *progress, const Millrace__V1__StepResult *step,
                      uint64_t total_steps) {
    char text[MR_PROGRESS_JSON_BYTES];
    /* The newest step counts a tenth: steady, yet soon at a new speed. */
    progress->step_seconds = progress->steps == 0
                                 ? step->step_seconds
                                 : 0.9 * progress->step_seconds + 0.1 * step->step_seconds;
    progress->steps++;
    progress->loss = step->loss;
    if (progress->client->output == MR_OUTPUT_JSONL) {
        mr_progress_json(step, text, sizeof(text));
        puts(text);
        fflush(stdout);
    }
    if (progress->client->quiet)
        return;
    mr_progress_line(step, total_steps, progress->step_seconds, text, sizeof(text));
    int64_t now_ms = mr_clock_now_ms();
    if (mr_terminal_live()) {
        mr_terminal_live_set(text);
    } else if (progress->printed_ms == 0 || step->step == total_steps ||
               now_ms - progress->printed_ms >= MR_PROGRESS_PERIOD_MS) {
        progress->printed_ms = now_ms;
        mr_client_say(progress->client, "%s", text);
    }
}
