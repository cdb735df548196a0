/* SPDX-License-Identifier: Apache-2.0 */
/* parameter_names_reader.h: a list of parameter names in a job file, such as
 * [wte.weight, wpe.weight]. Whether the layer has parameters of these names is known only from its
 * description: layer_check.h.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_PARAMETER_NAMES_READER_H
#define MR_MODEL_PARAMETER_NAMES_READER_H

#include "daemon/model/job.h"
#include "daemon/model/parameter_names.h"
#include "daemon/model/yaml_tree.h"

/* Reads the list at node (path for errors) into out_names. False when anything was wrong: no list,
 * an empty one, no name, a name given twice, more than fits; the errors then say what. */
bool mr_parameter_names_read(const mr_yaml_node *node, const char *path,
                             char out_names[MR_PARAMETER_NAMES_BYTES], mr_job_errors *errors);

#endif
