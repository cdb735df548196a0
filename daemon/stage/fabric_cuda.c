/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/fabric_cuda.h"

#include "daemon/base/alloc.h"
#include "daemon/device/cuda/nccl/library.h"
#include "daemon/group/nccl.h"
#include "daemon/link/cuda_ipc.h"
#include "daemon/link/nccl.h"

static_assert((int)MR_NCCL_ID_BYTES <= (int)MR_GROUP_ID_BYTES, "an id of NCCL fits");

typedef struct cuda_fabric {
    mr_fabric fabric; /* first: what users hold */
    mr_nccl_place place;
    mr_device *device;
    mr_nccl_library *library; /* behind place.calls; NULL where they are the creator's */
} cuda_fabric;

static mr_status fabric_id_make(mr_fabric *fabric, unsigned char *out_id, size_t *out_bytes) {
    *out_bytes = MR_NCCL_ID_BYTES;
    return mr_communicator_id_make(&((cuda_fabric *)fabric)->place, out_id);
}

static mr_status id_check(const mr_group_id *id) {
    if (id->byte_count != MR_NCCL_ID_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "connect.group_ids of %s has %zu bytes; NCCL's have %d",
                        id->key, id->byte_count, MR_NCCL_ID_BYTES);
    return MR_OK;
}

static mr_status fabric_group_open(mr_fabric *fabric, const mr_group_id *id,
                                   const mr_group_options *options, int64_t timeout_ms,
                                   mr_group **out_group) {
    cuda_fabric *self = (cuda_fabric *)fabric;
    MR_TRY(id_check(id));
    return mr_group_nccl_open(&self->place, self->device, id->bytes, options, timeout_ms,
                              out_group);
}

static mr_status fabric_link_receiver(mr_fabric *fabric, mr_link_hub *hub,
                                      const mr_link_options *options, bool near,
                                      mr_link **out_link) {
    cuda_fabric *self = (cuda_fabric *)fabric;
    return near ? mr_link_cuda_ipc_receiver(&self->place, hub, options, out_link)
                : mr_link_nccl_receiver(&self->place, self->device, hub, options, out_link);
}

static mr_status fabric_link_sender(mr_fabric *fabric, const char *address,
                                    const mr_rpc_credentials *credentials,
                                    const mr_link_options *options, bool near, int64_t timeout_ms,
                                    mr_link **out_link) {
    cuda_fabric *self = (cuda_fabric *)fabric;
    return near ? mr_link_cuda_ipc_sender(&self->place, address, credentials, options, timeout_ms,
                                          out_link)
                : mr_link_nccl_sender(&self->place, address, credentials, options, timeout_ms,
                                      out_link);
}

static mr_status fabric_link_join(mr_fabric *fabric, mr_link *link, const mr_group_id *id,
                                  bool near, int64_t timeout_ms) {
    (void)fabric;
    if (near)
        return mr_link_cuda_ipc_join(link);
    MR_TRY(id_check(id));
    return mr_link_nccl_join(link, id->bytes, timeout_ms);
}

static void fabric_close(mr_fabric *fabric) {
    mr_nccl_library_close(((cuda_fabric *)fabric)->library);
    mr_free(fabric);
}

mr_status mr_fabric_cuda_create(const mr_nccl_place *place, mr_device *device,
                                mr_fabric **out_fabric) {
    cuda_fabric *self = mr_alloc(sizeof(*self));
    if (self == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a fabric");
    *self = (cuda_fabric){
        .fabric = {.name = "cuda",
                   .id_make = fabric_id_make,
                   .group_open = fabric_group_open,
                   .link_receiver = fabric_link_receiver,
                   .link_sender = fabric_link_sender,
                   .link_join = fabric_link_join,
                   .close = fabric_close},
        .place = *place,
        .device = device,
    };
    *out_fabric = &self->fabric;
    return MR_OK;
}

mr_status mr_fabric_cuda_open(mr_device *device, mr_fabric **out_fabric) {
    mr_nccl_library *library = NULL;
    mr_nccl_place place = {0};
    MR_ASSERT(device->ops->stream != NULL);
    MR_TRY(mr_nccl_library_open(NULL, NULL, &library));
    place.calls = mr_nccl_library_calls(library);
    place.compute_stream = device->ops->stream(device, &place.ordinal);
    mr_status status = mr_fabric_cuda_create(&place, device, out_fabric);
    if (mr_status_is_ok(status))
        ((cuda_fabric *)*out_fabric)->library = library;
    else
        mr_nccl_library_close(library);
    return status;
}
