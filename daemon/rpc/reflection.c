/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors are read straight from their wire form (google/protobuf/descriptor.proto gives the
 * field numbers named below); nothing is unpacked. */
#include "daemon/rpc/reflection.h"

#include <string.h>

#include "daemon/rpc/descriptors.h"
#include "daemon/rpc/wire.h"
#include "grpc/reflection/v1/reflection.pb-c.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;
typedef Grpc__Reflection__V1__ServiceResponse reflection_service;

#define REFLECTION_ASKS(what)                                                                      \
    GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##what
#define REFLECTION_SAYS(what)                                                                      \
    GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

enum {
    REFLECTION_FILES_MAX = 64,
    REFLECTION_SERVICES_MAX = 64,
    SET_FILE = 1, /* FileDescriptorSet */
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_DEPENDENCY = 3,
    ANY_NAME = 1, /* of a message, an enum, a service, a method */
};

typedef struct bytes {
    const uint8_t *data;
    size_t length;
} bytes;

static bool bytes_are(bytes b, const char *text, size_t length) {
    return b.length == length && memcmp(b.data, text, length) == 0;
}

/* The first field of that number; empty where there is none. */
static bytes bytes_field(bytes message, uint32_t id) {
    mr_rpc_wire wire = {.bytes = message.data, .end = message.length};
    mr_rpc_wire_field field;
    while (mr_rpc_wire_next(&wire, &field))
        if (field.id == id && field.type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
            return (bytes){field.data, field.length};
    return (bytes){(const uint8_t *)"", 0};
}

/* ---- symbols ---- */

/* What a descriptor contains: the field numbers of its named parts, and what those contain. */
typedef enum symbol_kind {
    SYMBOL_FILE,
    SYMBOL_MESSAGE,
    SYMBOL_FLAT,
    SYMBOL_LEAF,
    SYMBOL_COUNT
} symbol_kind;

static const struct {
    uint32_t id;
    symbol_kind kind;
} symbol_parts[SYMBOL_COUNT][4] = {
    [SYMBOL_FILE] = {{4, SYMBOL_MESSAGE}, {5, SYMBOL_FLAT}, {6, SYMBOL_FLAT}},
    [SYMBOL_MESSAGE] = {{2, SYMBOL_LEAF}, {3, SYMBOL_MESSAGE}, {4, SYMBOL_FLAT}},
    [SYMBOL_FLAT] = {{2, SYMBOL_LEAF}}, /* an enum's values, a service's methods */
};

/* Does the descriptor contain the symbol, a path of names with dots? Each level takes one name. */
static bool symbol_in(bytes descriptor, symbol_kind kind, const char *symbol) {
    size_t name = strcspn(symbol, ".");
    mr_rpc_wire wire = {.bytes = descriptor.data, .end = descriptor.length};
    mr_rpc_wire_field field;
    while (mr_rpc_wire_next(&wire, &field)) {
        for (size_t i = 0; i < 4; i++) {
            if (symbol_parts[kind][i].id != field.id ||
                field.type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
                continue;
            bytes part = {field.data, field.length};
            if (!bytes_are(bytes_field(part, ANY_NAME), symbol, name))
                continue;
            if (symbol[name] == '\0' ||
                symbol_in(part, symbol_parts[kind][i].kind, symbol + name + 1))
                return true;
        }
    }
    return false;
}

static bool file_has_symbol(bytes file, const char *symbol) {
    bytes package = bytes_field(file, FILE_PACKAGE);
    if (strlen(symbol) <= package.length || symbol[package.length] != '.' ||
        memcmp(symbol, package.data, package.length) != 0)
        return false;
    return symbol_in(file, SYMBOL_FILE, symbol + package.length + 1);
}

/* ---- files ---- */

/* Finds a file by name (symbol false) or by what it defines. */
static bool file_find(const char *text, size_t length, bool symbol, bytes *out_file) {
    mr_rpc_wire wire = {.bytes = mr_rpc_descriptors, .end = mr_rpc_descriptors_bytes};
    mr_rpc_wire_field field;
    while (mr_rpc_wire_next(&wire, &field)) {
        bytes file = {field.data, field.length};
        bool found = symbol ? file_has_symbol(file, text)
                            : bytes_are(bytes_field(file, FILE_NAME), text, length);
        if (field.id == SET_FILE && found) {
            *out_file = file;
            return true;
        }
    }
    return false;
}

/* Appends what files[0] imports, directly or not; each once. Returns the number of files. */
static size_t files_imported(bytes files[REFLECTION_FILES_MAX]) {
    size_t count = 1;
    for (size_t i = 0; i < count; i++) {
        mr_rpc_wire wire = {.bytes = files[i].data, .end = files[i].length};
        mr_rpc_wire_field field;
        while (mr_rpc_wire_next(&wire, &field)) {
            bytes found;
            if (field.id != FILE_DEPENDENCY || count == REFLECTION_FILES_MAX ||
                !file_find((const char *)field.data, field.length, false, &found))
                continue;
            size_t known = 0;
            while (known < count && files[known].data != found.data)
                known++;
            if (known == count)
                files[count++] = found;
        }
    }
    return count;
}

/* ---- answers ---- */

static mr_status answer_error(mr_rpc_stream *stream, reflection_response *response, mr_code code,
                              const char *text) {
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    error.error_code = (int32_t)code;
    error.error_message = (char *)(uintptr_t)text;
    response->message_response_case = REFLECTION_SAYS(ERROR_RESPONSE);
    response->error_response = &error;
    return mr_rpc_stream_send(stream, &response->base, NULL);
}

static mr_status answer_file(mr_rpc_stream *stream, reflection_response *response,
                             const char *text, bool symbol) {
    bytes files[REFLECTION_FILES_MAX];
    if (!file_find(text, strlen(text), symbol, &files[0]))
        return answer_error(stream, response, MR_CODE_NOT_FOUND,
                            symbol ? "no such symbol" : "no such file");
    size_t count = files_imported(files);
    ProtobufCBinaryData data[REFLECTION_FILES_MAX];
    for (size_t i = 0; i < count; i++)
        data[i] = (ProtobufCBinaryData){files[i].length, (uint8_t *)(uintptr_t)files[i].data};
    Grpc__Reflection__V1__FileDescriptorResponse answer =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    answer.file_descriptor_proto = data;
    answer.n_file_descriptor_proto = count;
    response->message_response_case = REFLECTION_SAYS(FILE_DESCRIPTOR_RESPONSE);
    response->file_descriptor_response = &answer;
    return mr_rpc_stream_send(stream, &response->base, NULL);
}

static mr_status answer_services(mr_rpc_stream *stream, reflection_response *response,
                                 const mr_rpc_reflection *reflection) {
    reflection_service services[REFLECTION_SERVICES_MAX];
    reflection_service *list[REFLECTION_SERVICES_MAX];
    size_t count = reflection->service_count;
    MR_ASSERT(count <= REFLECTION_SERVICES_MAX);
    for (size_t i = 0; i < count; i++) {
        services[i] = (reflection_service)GRPC__REFLECTION__V1__SERVICE_RESPONSE__INIT;
        services[i].name = (char *)(uintptr_t)reflection->services[i].descriptor->name;
        list[i] = &services[i];
    }
    Grpc__Reflection__V1__ListServiceResponse answer =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    answer.service = list;
    answer.n_service = count;
    response->message_response_case = REFLECTION_SAYS(LIST_SERVICES_RESPONSE);
    response->list_services_response = &answer;
    return mr_rpc_stream_send(stream, &response->base, NULL);
}

/* proto3 files have no extensions: every type has none. */
static mr_status answer_extensions(mr_rpc_stream *stream, reflection_response *response,
                                   const char *type) {
    bytes file;
    if (!file_find(type, strlen(type), true, &file))
        return answer_error(stream, response, MR_CODE_NOT_FOUND, "no such type");
    Grpc__Reflection__V1__ExtensionNumberResponse answer =
        GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
    answer.base_type_name = (char *)(uintptr_t)type;
    response->message_response_case = REFLECTION_SAYS(ALL_EXTENSION_NUMBERS_RESPONSE);
    response->all_extension_numbers_response = &answer;
    return mr_rpc_stream_send(stream, &response->base, NULL);
}

static mr_status reflection_answer(const mr_rpc_reflection *reflection, mr_rpc_stream *stream,
                                   reflection_request *request) {
    reflection_response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    response.valid_host = request->host;
    response.original_request = request;
    switch (request->message_request_case) {
    case REFLECTION_ASKS(LIST_SERVICES):
        return answer_services(stream, &response, reflection);
    case REFLECTION_ASKS(FILE_BY_FILENAME):
        return answer_file(stream, &response, request->file_by_filename, false);
    case REFLECTION_ASKS(FILE_CONTAINING_SYMBOL):
        return answer_file(stream, &response, request->file_containing_symbol, true);
    case REFLECTION_ASKS(ALL_EXTENSION_NUMBERS_OF_TYPE):
        return answer_extensions(stream, &response, request->all_extension_numbers_of_type);
    case REFLECTION_ASKS(FILE_CONTAINING_EXTENSION):
        return answer_error(stream, &response, MR_CODE_NOT_FOUND, "no such extension");
    default:
        return answer_error(stream, &response, MR_CODE_INVALID_ARGUMENT,
                            "the request asks nothing");
    }
}

/* ---- the stream ---- */

static void *reflection_opened(mr_rpc_stream *stream, void *service_context) {
    mr_rpc_stream_receive(stream);
    return service_context;
}

static void reflection_received(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                                mr_rpc_tail *owned_tail, void *context) {
    mr_rpc_tail_destroy(owned_tail);
    mr_status status = reflection_answer(context, stream, (reflection_request *)owned_message);
    protobuf_c_message_free_unpacked(owned_message, NULL);
    if (mr_status_is_ok(status))
        mr_rpc_stream_receive(stream);
    else
        mr_rpc_stream_finish(stream, status);
}

static void reflection_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    (void)status; /* what was asked has been answered */
    (void)context;
    mr_rpc_stream_finish(stream, MR_OK);
    mr_rpc_stream_unref(stream);
}

static const mr_rpc_stream_events reflection_events = {
    .on_message = reflection_received,
    .on_end = reflection_ended,
};

static const mr_rpc_method reflection_methods[] = {
    {.name = "ServerReflectionInfo", .on_open = reflection_opened, .events = &reflection_events},
};

/* v1alpha's messages are v1's under another package: on the wire, the same. */
static const ProtobufCMethodDescriptor alpha_methods[] = {
    {"ServerReflectionInfo", &grpc__reflection__v1__server_reflection_request__descriptor,
     &grpc__reflection__v1__server_reflection_response__descriptor},
};
static const unsigned alpha_methods_by_name[] = {0};
static const ProtobufCServiceDescriptor alpha_descriptor = {
    .magic = PROTOBUF_C__SERVICE_DESCRIPTOR_MAGIC,
    .name = "grpc.reflection.v1alpha.ServerReflection",
    .short_name = "ServerReflection",
    .package = "grpc.reflection.v1alpha",
    .n_methods = 1,
    .methods = alpha_methods,
    .method_indices_by_name = alpha_methods_by_name,
};

void mr_rpc_reflection_services(mr_rpc_reflection *reflection,
                                mr_rpc_service out_services[MR_RPC_REFLECTION_SERVICES]) {
    mr_rpc_service service = {.descriptor = &grpc__reflection__v1__server_reflection__descriptor,
                              .methods = reflection_methods,
                              .method_count = 1,
                              .context = reflection,
                              .receive_bytes_max = 65536};
    out_services[0] = service;
    service.descriptor = &alpha_descriptor;
    out_services[1] = service;
}
