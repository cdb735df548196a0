/* SPDX-License-Identifier: Apache-2.0 */
#include "client/job_source.h"

#include "millrace/v1/jobs.pb-c.h"

mr_status mr_job_source_read(mr_client *client, mr_job_file *out_file) {
    const mr_invocation *invocation = client->invocation;
    const char *name = mr_invocation_text(invocation, "job");
    if ((name != NULL) == (invocation->argument_count > 0))
        return MR_ERROR(INVALID_ARGUMENT, "%s needs either a job FILE or --job JOB",
                        invocation->command->noun);
    if (name == NULL)
        return mr_job_file_read(invocation->arguments[0], out_file, NULL);
    ProtobufCMessage *response = NULL;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)name; /* only packed */
    MR_TRY(mr_client_call(client, "Get", &request.base, &response));
    const Millrace__V1__Job *job = (Millrace__V1__Job *)response;
    mr_status status = mr_job_file_copy(name, job->job_file, job->base_directory, out_file);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}
