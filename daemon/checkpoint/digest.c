/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/digest.h"

#include <string.h>

#include <openssl/evp.h>

/* The library's own context stands for ours: the type is never completed here. */
static EVP_MD_CTX *digest_context(mr_digest *digest) {
    return (EVP_MD_CTX *)(void *)digest;
}

mr_status mr_digest_create(mr_digest **out_digest) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a SHA-256 context");
    if (EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(context);
        return MR_ERROR(INTERNAL, "the crypto library has no SHA-256");
    }
    *out_digest = (mr_digest *)(void *)context;
    return MR_OK;
}

void mr_digest_destroy(mr_digest *digest) {
    EVP_MD_CTX_free(digest_context(digest));
}

mr_status mr_digest_add(mr_digest *digest, const void *data, size_t bytes) {
    if (bytes > 0 && EVP_DigestUpdate(digest_context(digest), data, bytes) != 1)
        return MR_ERROR(INTERNAL, "SHA-256 failed on %zu bytes", bytes);
    return MR_OK;
}

mr_status mr_digest_finish(mr_digest *digest, char out_hex[MR_SHA256_HEX_BYTES]) {
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned raw_bytes = 0;
    if (EVP_DigestFinal_ex(digest_context(digest), raw, &raw_bytes) != 1 || raw_bytes != 32)
        return MR_ERROR(INTERNAL, "SHA-256 gave %u bytes instead of 32", raw_bytes);
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 32; i++) {
        out_hex[2 * i] = digits[raw[i] >> 4];
        out_hex[2 * i + 1] = digits[raw[i] & 15];
    }
    out_hex[MR_SHA256_HEX_BYTES - 1] = '\0';
    return MR_OK;
}

mr_status mr_digest_of(const void *data, size_t bytes, char out_hex[MR_SHA256_HEX_BYTES]) {
    mr_digest *digest = NULL;
    MR_TRY(mr_digest_create(&digest));
    mr_status status = mr_digest_add(digest, data, bytes);
    if (mr_status_is_ok(status))
        status = mr_digest_finish(digest, out_hex);
    mr_digest_destroy(digest);
    return status;
}

bool mr_digest_hex_valid(const char *text) {
    return strlen(text) == MR_SHA256_HEX_BYTES - 1 &&
           strspn(text, "0123456789abcdef") == MR_SHA256_HEX_BYTES - 1;
}
