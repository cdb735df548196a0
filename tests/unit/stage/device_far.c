/* SPDX-License-Identifier: Apache-2.0 */
/* device_far.c: the device whose memory the host cannot read (tests/far), for the same tests once
 * more. */
#include "tests/unit/stage/stage_model.h"

const char stage_model_device[] = "far";
