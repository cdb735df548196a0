/* SPDX-License-Identifier: Apache-2.0 */
/* Writes one small checkpoint for the tests of the client, always the same bytes: checkpoint_maker
 * FOLDER makes FOLDER/step-000000000007. */
#include <stdio.h>

#include "tests/unit/checkpoint/fixture.h"

int main(int argc, char **argv) {
    if (argc != 2) {
        fputs("usage: checkpoint_maker FOLDER\n", stderr);
        return 2;
    }
    mr_status status = fixture_save_step(argv[1], 3, 7);
    if (!mr_status_is_ok(status))
        fprintf(stderr, "%s\n", status.text);
    return mr_status_is_ok(status) ? 0 : 1;
}
