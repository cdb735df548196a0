/* SPDX-License-Identifier: Apache-2.0 */
/* device_cpu.c: the device of the tests as they are. */
#include "tests/unit/stage/stage_model.h"

const char stage_model_device[] = "cpu";
