/* SPDX-License-Identifier: Apache-2.0 */
/* manual.h: the manual page millrace(1), made from commands.def, in the man macros of roff.
 * Owner: client. Thread: main. */
#ifndef MR_CLIENT_MANUAL_H
#define MR_CLIENT_MANUAL_H

#include <stdio.h>

/* The whole page. */
void mr_manual_print(FILE *out);

#endif
