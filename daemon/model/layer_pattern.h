/* SPDX-License-Identifier: Apache-2.0 */
/* layer_pattern.h: the regular expression of `pipeline.partition: type:REGEX`, searched in what a
 * layer is called: its type and its name. The whole text behind "type:" is the pattern, colons and
 * all; case is ignored in the search and kept in the pattern, so \D stays \D (what is computed from
 * a lower-cased pattern is another expression). The dialect is PCRE2's, over UTF-8; "" is found in
 * everything. A search that needs more than MR_PATTERN_STEPS_MAX steps for one text is an error and
 * not a wait.
 * Owner: model. Pure, any thread.
 * Not here: the cut (plan/partition.h). */
#ifndef MR_MODEL_LAYER_PATTERN_H
#define MR_MODEL_LAYER_PATTERN_H

#include <stddef.h>

#include "daemon/base/status.h"
#include "daemon/model/layer_spec.h"

enum {
    MR_PATTERN_BYTES = 256, /* with the terminator */
    MR_PATTERN_STEPS_MAX = 10000,
    MR_PATTERN_HEAP_KIB_MAX = 1024,
};

/* Is pattern a regular expression? INVALID_ARGUMENT has the pattern, the reason and the byte. */
MR_MUST_CHECK mr_status mr_layer_pattern_check(const char *pattern);

/* What layers weigh in a cut by pattern: 1 where it is found in the type or in the name, else 0.
 * out_weights: count values; NULL to ask only whether there is a match.
 * INVALID_ARGUMENT: as above, no layer matches, or the search takes too many steps.
 * RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_layer_pattern_weigh(const char *pattern, const mr_layer_spec *layers,
                                               size_t count, double *out_weights);

#endif
