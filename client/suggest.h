/* SPDX-License-Identifier: Apache-2.0 */
/* suggest.h: the nearest word to a mistyped one.
 * Owner: client. Pure, any thread. Limits: words over MR_SUGGEST_BYTES_MAX are near to nothing. */
#ifndef MR_CLIENT_SUGGEST_H
#define MR_CLIENT_SUGGEST_H

#include <stdbool.h>
#include <stddef.h>

enum { MR_SUGGEST_BYTES_MAX = 32 };

/* Edits (insert, delete, replace, swap of neighbours) from a to b; SIZE_MAX for words over the
 * limit. The restricted edit distance of Damerau and Levenshtein. */
size_t mr_suggest_distance(const char *a, const char *b);
/* Is candidate near enough to be meant by word: at most a third of its letters differ (and at most
 * 3), or word begins it? *best is the least distance so far and is lowered to the candidate's. */
bool mr_suggest_better(const char *word, const char *candidate, size_t *best);

#endif
