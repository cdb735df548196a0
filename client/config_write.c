/* SPDX-License-Identifier: Apache-2.0 */
/* config_write.c: a configuration file as text, and its way to the disk. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "client/config_file.h"
#include "client/path_text.h"
#include "daemon/base/limits.h"

enum { CONFIG_FOLDER_MODE = 0700, CONFIG_FILE_MODE = 0600 };

static mr_status config_write_error(const char *path, const char *what) {
    int error = errno;
    if (error == EACCES || error == EPERM || error == EROFS)
        return MR_ERROR(PERMISSION_DENIED, "%s: cannot %s: %s", mr_path_shorten(path).text, what,
                        strerror(error));
    return MR_ERROR(UNKNOWN, "%s: cannot %s: %s", mr_path_shorten(path).text, what,
                    strerror(error));
}

/* A JSON string is a YAML one. */
static void config_write_text(FILE *out, const char *text) {
    json_t *value = json_string(text);
    if (value != NULL)
        (void)json_dumpf(value, out, JSON_ENCODE_ANY); /* ferror tells */
    json_decref(value);
}

static void config_write_values(FILE *out, const char *indent, const mr_config_values *values) {
    for (size_t i = 0; i < mr_setting_count; i++) {
        if (values->text[i] == NULL)
            continue;
        fprintf(out, "%s%s: ", indent, mr_settings[i].name);
        if (mr_setting_option(i)->kind == MR_OPTION_FLAG)
            fputs(values->text[i], out);
        else
            config_write_text(out, values->text[i]);
        fputc('\n', out);
    }
}

static void config_write_all(FILE *out, const mr_config_file *file) {
    fprintf(out, "# Written by millrace config; comments are lost when it writes again.\n"
                 "schema: " MR_CONFIG_SCHEMA "\n");
    config_write_values(out, "", &file->values);
    if (file->context_count > 0)
        fprintf(out, "contexts:\n");
    for (size_t i = 0; i < file->context_count; i++) {
        const mr_config_context *context = &file->contexts[i];
        bool empty = true;
        for (size_t s = 0; s < mr_setting_count; s++)
            empty = empty && context->values.text[s] == NULL;
        fprintf(out, "  %s:%s\n", context->name, empty ? " {}" : "");
        config_write_values(out, "    ", &context->values);
    }
}

/* Every folder above path. */
static mr_status config_make_folders(const char *path) {
    char folder[MR_CHECKPOINT_PATH_BYTES];
    snprintf(folder, sizeof(folder), "%s", path);
    for (char *slash = strchr(folder + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, CONFIG_FOLDER_MODE) != 0 && errno != EEXIST)
            return config_write_error(folder, "make the folder");
        *slash = '/';
    }
    return MR_OK;
}

static mr_status config_write_fd(int owned_fd, const char *path, const mr_config_file *file) {
    FILE *out = fdopen(owned_fd, "w");
    if (out == NULL) {
        mr_status status = config_write_error(path, "write");
        (void)close(owned_fd); /* nothing is in it */
        return status;
    }
    config_write_all(out, file);
    bool good = fflush(out) == 0 && !ferror(out) && fsync(fileno(out)) == 0;
    mr_status status = good ? MR_OK : config_write_error(path, "write");
    if (fclose(out) != 0 && mr_status_is_ok(status))
        status = config_write_error(path, "write");
    return status;
}

mr_status mr_config_file_write(const mr_config_file *file) {
    char part[MR_CHECKPOINT_PATH_BYTES];
    MR_ASSERT(file->path != NULL);
    int length = snprintf(part, sizeof(part), "%s.XXXXXX", file->path);
    if (length < 0 || (size_t)length >= sizeof(part))
        return MR_ERROR(INVALID_ARGUMENT, "%s: the path has %d bytes; at most %zu are allowed",
                        mr_path_shorten(file->path).text, length, sizeof(part) - 1);
    MR_TRY(config_make_folders(file->path));
    int fd = mkostemp(part, O_CLOEXEC);
    if (fd < 0)
        return config_write_error(file->path, "write");
    mr_status status = MR_OK;
    if (fchmod(fd, CONFIG_FILE_MODE) != 0)
        status = config_write_error(file->path, "write");
    mr_status written = config_write_fd(fd, file->path, file);
    if (mr_status_is_ok(status))
        status = written;
    if (mr_status_is_ok(status) && rename(part, file->path) != 0)
        status = config_write_error(file->path, "write");
    if (!mr_status_is_ok(status))
        (void)unlink(part); /* the file before stays as it was */
    return status;
}
