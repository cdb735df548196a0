/* SPDX-License-Identifier: Apache-2.0 */
/* choice.h: which algorithm was fastest, kept on disk between runs. One text file for each version
 * of the library and kind of card; a line has a key, the algorithm's 64 bytes in hexadecimal and a
 * checksum. Damaged lines are passed over; a file that cannot be written costs a measurement at the
 * next start and nothing else.
 * Owner: device/cuda. Thread: EXEC. Limits: MR_DEVICE_PLANS_MAX.
 * Not here: measuring (product.c). */
#ifndef MR_DEVICE_CUDA_CHOICE_H
#define MR_DEVICE_CUDA_CHOICE_H

#include "daemon/base/status.h"

enum { MR_CHOICE_KEY_BYTES = 96, MR_CHOICE_WORDS = 8 };

typedef struct mr_choices mr_choices;

/* folder: where the file is, made when it is missing; NULL: choices live as long as the process.
 * file: its name. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_choices_open(const char *folder, const char *file,
                                        mr_choices **out_choices);
/* NULL is fine. */
void mr_choices_close(mr_choices *choices);
/* NULL: no such choice. Valid until the next put. */
const uint64_t *mr_choices_find(const mr_choices *choices, const char *key);
/* Notes a choice and writes the file anew. key: no blanks, below MR_CHOICE_KEY_BYTES. UNAVAILABLE:
 * the file cannot be written; the choice is noted all the same. RESOURCE_EXHAUSTED: full. */
MR_MUST_CHECK mr_status mr_choices_put(mr_choices *choices, const char *key,
                                       const uint64_t words[MR_CHOICE_WORDS]);

#endif
