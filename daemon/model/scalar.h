/* SPDX-License-Identifier: Apache-2.0 */
/* scalar.h: what the text of a scalar means, strictly. A whole number is decimal digits, a number
 * is written as in JSON, true and false are the only booleans; the other readings that YAML has had
 * over the years (yes, 0x10, 1_000, 010, .inf) are never guessed at.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_SCALAR_H
#define MR_MODEL_SCALAR_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/model/yaml_tree.h"

enum { MR_SCALAR_TEXT_BYTES = 72 };

/* Plain decimal digits without leading zeros that fit 64 bits. */
bool mr_scalar_counter(const mr_yaml_node *node, uint64_t *out_value);
/* Plain digits with or without a minus sign, whatever their size. */
bool mr_scalar_is_integer(const mr_yaml_node *node);
/* A plain, finite number: digits, fraction, exponent. */
bool mr_scalar_number(const mr_yaml_node *node, double *out_value);
/* true or false, plain. */
bool mr_scalar_bool(const mr_yaml_node *node, bool *out_value);
/* No value at all: empty, ~ or null, plain. */
bool mr_scalar_is_null(const mr_yaml_node *node);
/* A plain scalar that some reader of YAML takes for something other than a text. */
bool mr_scalar_is_ambiguous(const mr_yaml_node *node);
/* What any node is, for errors: 8, the text "8", empty, a list, a mapping. */
const char *mr_scalar_describe(const mr_yaml_node *node, char out_text[MR_SCALAR_TEXT_BYTES]);

#endif
