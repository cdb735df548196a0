/* SPDX-License-Identifier: Apache-2.0 */
/* grpc.h: groups in host memory over gRPC streams (service millrace.v1.Group): every member but the
 * first opens one stream to the first, which combines in rank order and sends the result back.
 * Owner: stage. Thread: LOOP for the hub; open blocks, so EXEC. */
#ifndef MR_GROUP_GRPC_H
#define MR_GROUP_GRPC_H

#include "daemon/group/group.h"
#include "daemon/rpc/channel.h"
#include "daemon/rpc/server.h"

typedef struct mr_group_hub mr_group_hub;

/* The service's table for mr_rpc_server_start; the hub outlives the server. RESOURCE_EXHAUSTED: no
 * memory. */
MR_MUST_CHECK mr_status mr_group_hub_create(mr_group_hub **out_hub);
void mr_group_hub_destroy(mr_group_hub *hub);
mr_rpc_service mr_group_hub_service(mr_group_hub *hub);

/* On the first member: registers with the hub, so that joins are accepted from now on. */
MR_MUST_CHECK mr_status mr_group_grpc_first(mr_group_hub *hub, const mr_group_options *options,
                                            mr_group **out_group);
/* On the others: joins the first member at address, at most timeout_ms. */
MR_MUST_CHECK mr_status mr_group_grpc_member(const char *address,
                                             const mr_rpc_credentials *credentials,
                                             const mr_group_options *options, int64_t timeout_ms,
                                             mr_group **out_group);

#endif
