/* SPDX-License-Identifier: Apache-2.0 */
/* session_asides.h: tensors put aside (model/aside.h) on the links. Beside the activation a message
 * carries what was put before the boundary and is taken behind it, under "aside/NAME", through as
 * many stages as lie between; the message of the gradient carries their gradients back.
 * Owner: stage/executor. Thread: EXEC. No allocation. Internal to session*.c. */
#ifndef MR_STAGE_SESSION_ASIDES_H
#define MR_STAGE_SESSION_ASIDES_H

#include "daemon/stage/session_state.h"

/* What a message carries, by the plan's index; no data where it does not. */
void mr_session_asides_find(const mr_session *session, const mr_message *message,
                            mr_tensor out[MR_ASIDES_MAX]);
/* Makes message, a copy of the stage's input message, carry what the next stage needs. */
void mr_session_asides_forward(const mr_session *session, uint32_t micro_batch,
                               mr_message *message);
/* Adds the gradients that the previous stage needs. turn: of the buffers. */
void mr_session_asides_backward(const mr_session *session, size_t turn, mr_message *message);

#endif
