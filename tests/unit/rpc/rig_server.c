/* SPDX-License-Identifier: Apache-2.0 */
/* rig_server.c: the rig's server as a process of its own, for clients in other languages: prints
 * its address as one line, serves until its standard input ends, stops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/rpc/rig.h"

int main(void) {
    mr_rpc_server *server;
    if (!mr_status_is_ok(mr_rpc_start()) ||
        !mr_status_is_ok(rig_server("127.0.0.1:0", NULL, &server)))
        return 1;
    (void)printf("%s\n", mr_rpc_server_address(server));
    (void)fflush(stdout);
    while (getchar() != EOF)
        continue;
    mr_rpc_server_stop(server, RIG_GRACE_MS);
    mr_rpc_stop();
    return 0;
}
