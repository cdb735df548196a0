/* SPDX-License-Identifier: Apache-2.0 */
/* runtime.h: gRPC's own start and end. Signals are blocked before gRPC makes threads; no process
 * may fork after start. Owner: rpc. Thread: main. */
#ifndef MR_RPC_RUNTIME_H
#define MR_RPC_RUNTIME_H

#include "daemon/base/status.h"

/* Before any other function of rpc/. Also starts the RPC threads that serve channels. */
MR_MUST_CHECK mr_status mr_rpc_start(void);
/* After every server is stopped and every channel destroyed; waits until gRPC is down. Asserts that
 * no operation is outstanding. */
void mr_rpc_stop(void);

#endif
