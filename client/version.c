/* SPDX-License-Identifier: Apache-2.0 */
/* version.c: the client's own version; asks no server. */
#include "daemon/base/version.h"

#include <stdio.h>

#include "client/nouns.h"
#include "client/render.h"

mr_status mr_command_version(mr_client *client) {
    if (client->output == MR_OUTPUT_JSON || client->output == MR_OUTPUT_JSONL)
        return mr_render_document(client, "version", json_string(MR_VERSION));
    printf("%s%s\n", client->output == MR_OUTPUT_NAME ? "" : "millrace ", MR_VERSION);
    return MR_OK;
}
