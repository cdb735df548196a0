/* SPDX-License-Identifier: Apache-2.0 */
/* services.h: the methods of Jobs that have files of their own; services_jobs.c has the table.
 * Owner: coordinator; only its own files include it. Thread: LOOP. */
#ifndef MR_COORDINATOR_SERVICES_H
#define MR_COORDINATOR_SERVICES_H

#include "daemon/coordinator/request.h"
#include "millrace/v1/jobs.pb-c.h"

/* services_query.c */
void mr_service_validate(mr_request *request);
void mr_service_plan(mr_request *request);
void mr_service_get_profile(mr_request *request);
void mr_service_get(mr_request *request);
void mr_service_list(mr_request *request);
void mr_service_list_checkpoints(mr_request *request);
void mr_service_list_stages(mr_request *request);
void mr_service_cluster_info(mr_request *request);
void mr_service_open_feed(mr_request *request);
/* services_watch.c */
void mr_service_watch(mr_request *request);

#endif
