/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/yaml_tree.h"

#include <string.h>

#include <libfyaml.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/model/yaml_text.h"

struct mr_yaml_tree {
    mr_yaml_node *nodes;
    size_t node_count;
    size_t node_capacity;
    char *texts; /* keys and scalars, each with its terminator */
    size_t text_bytes;
    size_t text_capacity;
};

/* A list or mapping that is being read. */
typedef struct tree_level {
    mr_yaml_node *node;
    mr_yaml_node *last_child;
    const char *key; /* read, its value still to come */
    size_t key_line;
} tree_level;

typedef struct tree_builder {
    mr_yaml_tree *tree;
    const char *source; /* borrowed */
    size_t source_bytes;
    tree_level levels[MR_YAML_DEPTH_MAX];
    size_t depth;
    size_t documents;
    size_t line; /* of the event at hand, then of the error */
} tree_builder;

/* The text of a scalar, kept inside the tree. token: NULL for a value that is not there. The
 * token's marks are used for its bytes, which lie in the source. */
static mr_status text_keep(tree_builder *b, struct fy_token *token, const char **out_text) {
    static const struct {
        bool known;
        mr_yaml_quote quote;
    } styles[FYSS_MAX] = {
        [FYSS_PLAIN] = {true, MR_YAML_QUOTE_NONE},
        [FYSS_SINGLE_QUOTED] = {true, MR_YAML_QUOTE_SINGLE},
        [FYSS_DOUBLE_QUOTED] = {true, MR_YAML_QUOTE_DOUBLE},
    };
    mr_yaml_tree *tree = b->tree;
    const struct fy_mark *start = token != NULL ? fy_token_start_mark(token) : NULL;
    const struct fy_mark *end = token != NULL ? fy_token_end_mark(token) : NULL;
    size_t bytes = 0;
    char *copy = tree->texts + tree->text_bytes;
    if (start != NULL && end != NULL) {
        unsigned style = (unsigned)fy_token_scalar_style(token);
        MR_ASSERT(start->input_pos <= end->input_pos);
        MR_ASSERT(end->input_pos <= b->source_bytes);
        bytes = end->input_pos - start->input_pos;
        if (style >= FYSS_MAX || !styles[style].known)
            return MR_ERROR(INVALID_ARGUMENT,
                            "texts after | or > are not supported; write the text on one line");
        if (bytes >= tree->text_capacity - tree->text_bytes)
            return MR_ERROR(INVALID_ARGUMENT, "the texts of the file are too long");
        MR_TRY(mr_yaml_text_decode(styles[style].quote, b->source + start->input_pos, bytes, copy,
                                   &bytes));
    } else if (tree->text_capacity == tree->text_bytes) {
        return MR_ERROR(INVALID_ARGUMENT, "the texts of the file are too long");
    }
    copy[bytes] = '\0';
    tree->text_bytes += bytes + 1;
    *out_text = copy;
    return MR_OK;
}

/* Appends a node to the list or mapping at hand. */
static mr_status node_add(tree_builder *b, mr_yaml_kind kind, mr_yaml_node **out_node) {
    mr_yaml_tree *tree = b->tree;
    if (tree->node_count == tree->node_capacity)
        return MR_ERROR(INVALID_ARGUMENT, "the file has more than %d entries", MR_YAML_NODES_MAX);
    mr_yaml_node *node = &tree->nodes[tree->node_count++];
    *node = (mr_yaml_node){.kind = kind, .line = b->line};
    if (b->depth > 0) {
        tree_level *level = &b->levels[b->depth - 1];
        node->key = level->key;
        node->key_line = level->key_line;
        level->key = NULL;
        if (level->last_child != NULL)
            level->last_child->next = node;
        else
            level->node->child = node;
        level->last_child = node;
        level->node->child_count++;
        if (level->node->kind == MR_YAML_MAP && level->node->child_count > MR_YAML_KEYS_MAX)
            return MR_ERROR(INVALID_ARGUMENT, "a mapping has more than %d keys", MR_YAML_KEYS_MAX);
    }
    *out_node = node;
    return MR_OK;
}

static bool builder_wants_key(const tree_builder *b) {
    if (b->depth == 0)
        return false;
    const tree_level *level = &b->levels[b->depth - 1];
    return level->node->kind == MR_YAML_MAP && level->key == NULL;
}

static mr_status builder_scalar(tree_builder *b, struct fy_token *token) {
    const char *kept = NULL;
    MR_TRY(text_keep(b, token, &kept));
    if (builder_wants_key(b)) {
        b->levels[b->depth - 1].key = kept;
        b->levels[b->depth - 1].key_line = b->line;
        return MR_OK;
    }
    mr_yaml_node *node = NULL;
    MR_TRY(node_add(b, MR_YAML_SCALAR, &node));
    node->text = kept;
    node->plain = token == NULL || fy_token_scalar_style(token) == FYSS_PLAIN;
    return MR_OK;
}

static mr_status builder_open(tree_builder *b, mr_yaml_kind kind) {
    mr_yaml_node *node = NULL;
    if (builder_wants_key(b))
        return MR_ERROR(INVALID_ARGUMENT, "a key is a %s; it must be a word",
                        kind == MR_YAML_MAP ? "mapping" : "list");
    if (b->depth == MR_YAML_DEPTH_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "the file is nested more than %d deep",
                        MR_YAML_DEPTH_MAX);
    MR_TRY(node_add(b, kind, &node));
    b->levels[b->depth++] = (tree_level){.node = node};
    return MR_OK;
}

static mr_status builder_event(tree_builder *b, struct fy_event *event) {
    const struct fy_mark *mark = fy_event_start_mark(event);
    if (mark != NULL && mark->line >= 0)
        b->line = (size_t)mark->line + 1;
    if (event->type == FYET_ALIAS || fy_event_get_anchor_token(event) != NULL)
        return MR_ERROR(INVALID_ARGUMENT,
                        "anchors (&) and aliases (*) are not supported; write the value out");
    if (fy_event_get_tag_token(event) != NULL)
        return MR_ERROR(INVALID_ARGUMENT, "tags (!) are not supported; write the value alone");
    switch (event->type) {
    case FYET_DOCUMENT_START:
        if (++b->documents > 1)
            return MR_ERROR(INVALID_ARGUMENT,
                            "a second document starts here; a job file is one document");
        return MR_OK;
    case FYET_SCALAR:
        return builder_scalar(b, event->scalar.value);
    case FYET_MAPPING_START:
        return builder_open(b, MR_YAML_MAP);
    case FYET_SEQUENCE_START:
        return builder_open(b, MR_YAML_LIST);
    case FYET_MAPPING_END:
    case FYET_SEQUENCE_END:
        MR_ASSERT(b->depth > 0);
        b->depth--;
        return MR_OK;
    default:
        return MR_OK;
    }
}

/* What libfyaml says about a text that is no YAML. */
static mr_status syntax_error(tree_builder *b, struct fy_diag *diag) {
    void *iterator = NULL;
    const struct fy_diag_error *error = fy_diag_errors_iterate(diag, &iterator);
    if (error == NULL || error->msg == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "this is not YAML");
    if (error->line > 0)
        b->line = (size_t)error->line;
    return MR_ERROR(INVALID_ARGUMENT, "this is not YAML: %s", error->msg);
}

static mr_status builder_run(tree_builder *b, struct fy_parser *parser, struct fy_diag *diag) {
    mr_status status = MR_OK;
    bool more = true;
    while (more && mr_status_is_ok(status)) {
        struct fy_event *event = fy_parser_parse(parser);
        if (event == NULL)
            return fy_parser_get_stream_error(parser) ? syntax_error(b, diag) : MR_OK;
        status = builder_event(b, event);
        more = event->type != FYET_STREAM_END;
        fy_parser_event_free(parser, event);
    }
    return status;
}

static mr_status builder_parse(tree_builder *b, const char *text, size_t bytes) {
    mr_status status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read a file of %zu bytes", bytes);
    struct fy_parser *parser = NULL;
    struct fy_diag_cfg diag_options;
    fy_diag_cfg_default(&diag_options);
    diag_options.fp = NULL;
    diag_options.colorize = false;
    struct fy_diag *diag = fy_diag_create(&diag_options);
    if (diag == NULL)
        goto out;
    fy_diag_set_collect_errors(diag, true);
    struct fy_parse_cfg options = {
        .flags = FYPCF_QUIET | FYPCF_DEFAULT_VERSION_1_2 | FYPCF_SLOPPY_FLOW_INDENTATION,
        .diag = diag,
    };
    parser = fy_parser_create(&options);
    if (parser == NULL || fy_parser_set_string(parser, text, bytes) != 0)
        goto out;
    status = builder_run(b, parser, diag);
out:
    if (parser != NULL)
        fy_parser_destroy(parser);
    if (diag != NULL)
        fy_diag_destroy(diag);
    return status;
}

static mr_status tree_create(size_t bytes, mr_yaml_tree **out_tree) {
    mr_yaml_tree *tree = mr_alloc(sizeof(*tree));
    if (tree == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read a file of %zu bytes", bytes);
    /* Every node stands for at least one byte of the text or for the mapping around one, and no
     * text is longer than its bytes in the file. Both are checked while reading. */
    tree->node_capacity = 2 * bytes + 2;
    if (tree->node_capacity > MR_YAML_NODES_MAX)
        tree->node_capacity = MR_YAML_NODES_MAX;
    tree->text_capacity = bytes + 2 * tree->node_capacity + 2;
    tree->nodes = mr_alloc_array(tree->node_capacity, sizeof(*tree->nodes));
    tree->texts = mr_alloc(tree->text_capacity);
    if (tree->nodes == NULL || tree->texts == NULL) {
        mr_yaml_tree_destroy(tree);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to read a file of %zu bytes", bytes);
    }
    *out_tree = tree;
    return MR_OK;
}

/* Nothing at all, or "---" and comments. */
static bool tree_is_empty(const mr_yaml_tree *tree) {
    const mr_yaml_node *root = &tree->nodes[0];
    return tree->node_count == 0 ||
           (root->kind == MR_YAML_SCALAR && root->plain && root->text[0] == '\0');
}

mr_status mr_yaml_tree_parse(const char *text, size_t bytes, mr_yaml_tree **out_tree,
                             size_t *out_line) {
    tree_builder builder = {0};
    *out_line = 0;
    if (bytes > MR_JOB_FILE_BYTES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "the file has %zu bytes; it may have at most %d", bytes,
                        MR_JOB_FILE_BYTES_MAX);
    MR_TRY(mr_yaml_text_check(text, bytes, out_line));
    *out_line = 0;
    if (bytes >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) { /* byte order mark */
        text += 3;
        bytes -= 3;
    }
    if (bytes == 0)
        return MR_ERROR(INVALID_ARGUMENT, "the file is empty");
    MR_TRY(tree_create(bytes, &builder.tree));
    builder.source = text;
    builder.source_bytes = bytes;
    mr_status status = builder_parse(&builder, text, bytes);
    if (mr_status_is_ok(status) && tree_is_empty(builder.tree)) {
        builder.line = 0;
        status = MR_ERROR(INVALID_ARGUMENT, "the file is empty");
    }
    if (!mr_status_is_ok(status)) {
        *out_line = builder.line;
        mr_yaml_tree_destroy(builder.tree);
        return status;
    }
    MR_ASSERT(builder.depth == 0);
    *out_tree = builder.tree;
    return MR_OK;
}

void mr_yaml_tree_destroy(mr_yaml_tree *tree) {
    if (tree == NULL)
        return;
    mr_free(tree->nodes);
    mr_free(tree->texts);
    mr_free(tree);
}

const mr_yaml_node *mr_yaml_tree_root(const mr_yaml_tree *tree) {
    return &tree->nodes[0];
}
