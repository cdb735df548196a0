/* SPDX-License-Identifier: Apache-2.0 */
/* Writes one small checkpoint for the tests of the client, always the same bytes: checkpoint_maker
 * FOLDER makes FOLDER/step-000000000007; FOLDER STEP that of another step. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/checkpoint/fixture.h"

int main(int argc, char **argv) {
    if (argc != 2 && argc != 3) {
        fputs("usage: checkpoint_maker FOLDER [STEP]\n", stderr);
        return 2;
    }
    unsigned long step = argc == 3 ? strtoul(argv[2], NULL, 10) : 7;
    mr_status status = fixture_save_step(argv[1], 3, step);
    if (!mr_status_is_ok(status))
        fprintf(stderr, "%s\n", status.text);
    return mr_status_is_ok(status) ? 0 : 1;
}
