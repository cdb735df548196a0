/* SPDX-License-Identifier: Apache-2.0 */
/* nccl.h: links between devices by NCCL: one communicator of two ranks for each edge and direction,
 * on a stream of its own. Tag and shapes go over a gRPC link (header.h), which also has the slots,
 * the credit and the news of a lost peer; the bytes go by ncclSend and ncclRecv, without the host.
 *
 * What differs from a gRPC link: a message's bytes move when both ends have asked for them, send
 * and receive, so wait_sent may wait for the peer's receive (schedules are proved for that, law 2).
 * receive returns when the transfer is queued; the device's compute stream waits for it. release
 * lets the next transfer into the slot wait for what the compute stream had been given.
 * Owner: stage. Thread: EXEC, as communicator.h says; interrupt and bytes: any. */
#ifndef MR_LINK_NCCL_H
#define MR_LINK_NCCL_H

#include "daemon/device/cuda/nccl/communicator.h"
#include "daemon/device/device.h"
#include "daemon/link/grpc.h"

/* As mr_link_grpc_receiver and mr_link_grpc_sender; usable after the join. Slots are the device's
 * memory. device is borrowed until close. */
MR_MUST_CHECK mr_status mr_link_nccl_receiver(const mr_nccl_place *place, mr_device *device,
                                              mr_link_hub *hub, const mr_link_options *options,
                                              mr_link **out_link);
MR_MUST_CHECK mr_status mr_link_nccl_sender(const mr_nccl_place *place, const char *address,
                                            const mr_rpc_credentials *credentials,
                                            const mr_link_options *options, int64_t timeout_ms,
                                            mr_link **out_link);
/* Either end: makes the communicator and sends one byte through it, so that it stands before step
 * 0. Waits for the other end, at most timeout_ms. id: of this epoch and edge. */
MR_MUST_CHECK mr_status mr_link_nccl_join(mr_link *link, const unsigned char id[MR_NCCL_ID_BYTES],
                                          int64_t timeout_ms);

#endif
