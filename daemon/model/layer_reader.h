/* SPDX-License-Identifier: Apache-2.0 */
/* layer_reader.h: the entries of model.layers, read strictly: a type has its own fields and no
 * others, repeat: N stands for N equal layers, and an lm_head takes what it leaves out from its
 * tie. Owner: model. Pure, any thread. */
#ifndef MR_MODEL_LAYER_READER_H
#define MR_MODEL_LAYER_READER_H

#include "daemon/model/job.h"
#include "daemon/model/yaml_tree.h"

/* Reads the list at node (path: "model.layers", for errors) into *out_layers, allocated here, to be
 * freed with mr_free. False when anything was wrong; the errors then say what. */
bool mr_layers_read(const mr_yaml_node *node, const char *path, mr_layer_spec **out_layers,
                    size_t *out_count, mr_job_errors *errors);

/* Reads a list of layer types into bits, one for each mr_layer_type. False when anything was wrong;
 * the errors then say what. */
bool mr_layer_types_read(const mr_yaml_node *node, const char *path, uint64_t *out_types,
                         mr_job_errors *errors);

#endif
