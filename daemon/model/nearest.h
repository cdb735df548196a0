/* SPDX-License-Identifier: Apache-2.0 */
/* nearest.h: which known word a mistyped one was meant to be.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_NEAREST_H
#define MR_MODEL_NEAREST_H

#include <stdbool.h>
#include <stddef.h>

enum { MR_NEAREST_WORD_BYTES = 48 };

typedef struct mr_nearest {
    const char *word;     /* what was written */
    const char *best;     /* the nearest known word so far; NULL: none is near */
    size_t best_bytes;    /* best need not be terminated */
    size_t best_distance; /* inserted, deleted, changed and swapped letters */
} mr_nearest;

/* No known word considered yet. word is borrowed as long as the result is used. */
mr_nearest mr_nearest_start(const char *word);
/* Considers a known word of that many bytes, borrowed. Near is one difference in up to three
 * letters, two in up to eight, a third of the letters beyond; of equally near words the first
 * stays. */
void mr_nearest_offer(mr_nearest *nearest, const char *known, size_t bytes);

#endif
