/* SPDX-License-Identifier: Apache-2.0 */
/* fabric.h: how tensors in the memory of a device that is not the host travel between stages. A
 * stage on a CPU has none and uses gRPC for everything; one on a CUDA device has NCCL and CUDA IPC
 * (fabric_cuda.h). Which links and groups use it is decided in connections.c, from the plan alone,
 * so that both ends decide alike.
 * Owner: stage. Thread: EXEC. */
#ifndef MR_STAGE_FABRIC_H
#define MR_STAGE_FABRIC_H

#include "daemon/device/device.h"
#include "daemon/group/group.h"
#include "daemon/link/grpc.h"
#include "daemon/plan/group_ids.h"

typedef struct mr_fabric mr_fabric;

/* All required but group_open. Links of a fabric send their headers over gRPC and are usable after
 * their join. */
struct mr_fabric {
    const char *name;
    /* A new id: out_id [MR_GROUP_ID_BYTES]. */
    mr_status (*id_make)(mr_fabric *fabric, unsigned char *out_id, size_t *out_bytes);
    /* Blocks until every member has come, at most timeout_ms. NULL: no groups; they are of the
     * host. */
    mr_status (*group_open)(mr_fabric *fabric, const mr_group_id *id,
                            const mr_group_options *options, int64_t timeout_ms,
                            mr_group **out_group);
    /* As mr_link_grpc_receiver and mr_link_grpc_sender. near: the peer is on this machine. */
    mr_status (*link_receiver)(mr_fabric *fabric, mr_link_hub *hub, const mr_link_options *options,
                               bool near, mr_link **out_link);
    mr_status (*link_sender)(mr_fabric *fabric, const char *address,
                             const mr_rpc_credentials *credentials, const mr_link_options *options,
                             bool near, int64_t timeout_ms, mr_link **out_link);
    /* Both ends; blocks until the other has come. id: NULL for a near link. */
    mr_status (*link_join)(mr_fabric *fabric, mr_link *link, const mr_group_id *id, bool near,
                           int64_t timeout_ms);
    /* After every link and group of it. */
    void (*close)(mr_fabric *fabric);
};

/* Makes a fabric for a device, which is borrowed until close. */
typedef mr_status (*mr_fabric_opener)(const mr_device_options *options, mr_device *device,
                                      mr_fabric **out_fabric);

#endif
