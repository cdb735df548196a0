/* SPDX-License-Identifier: Apache-2.0 */
/* yaml_tree.h: a YAML (or JSON) text as a tree of nodes with line numbers. The only file here that
 * knows libfyaml: its event parser is read, not its documents, so that size, depth and number of
 * nodes are bounded while reading and nothing is ever expanded. Anchors, aliases, tags, keys that
 * are not scalars, control characters in scalars and a second document are refused. Scalars stay
 * texts: what "1e-3" or "yes" means is the reader's matter (field.h), which also refuses a key that
 * is given twice, because it can name both lines.
 * Owner: model. Pure, any thread. Limits: the enum below and MR_JOB_FILE_BYTES_MAX. */
#ifndef MR_MODEL_YAML_TREE_H
#define MR_MODEL_YAML_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/status.h"

enum {
    MR_YAML_NODES_MAX = 1 << 18, /* room for MR_LAYERS_MAX layers written out one by one */
    MR_YAML_DEPTH_MAX = 16,
    MR_YAML_KEYS_MAX = 64, /* keys of one mapping */
};

typedef enum mr_yaml_kind { MR_YAML_SCALAR, MR_YAML_LIST, MR_YAML_MAP } mr_yaml_kind;

typedef struct mr_yaml_node {
    mr_yaml_kind kind;
    bool plain;       /* a scalar without quotes */
    size_t line;      /* from 1 */
    size_t key_line;  /* of the key, in a mapping */
    const char *key;  /* in a mapping, else NULL */
    const char *text; /* of a scalar, UTF-8, without control characters, else NULL */
    size_t child_count;
    struct mr_yaml_node *child; /* first child of a list or mapping */
    struct mr_yaml_node *next;  /* next child of the same parent */
} mr_yaml_node;

typedef struct mr_yaml_tree mr_yaml_tree;

/* Reads a text. INVALID_ARGUMENT: what is wrong with it, on line *out_line (0: the whole);
 * RESOURCE_EXHAUSTED: no memory. Owner frees the tree with mr_yaml_tree_destroy. */
MR_MUST_CHECK mr_status mr_yaml_tree_parse(const char *text, size_t bytes, mr_yaml_tree **out_tree,
                                           size_t *out_line);
/* NULL is fine. */
void mr_yaml_tree_destroy(mr_yaml_tree *tree);
const mr_yaml_node *mr_yaml_tree_root(const mr_yaml_tree *tree);

#endif
