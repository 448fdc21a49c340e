/* Uses libcrypto as NVIDIA's user-mode driver does: opens it for itself alone (RTLD_LOCAL), and
 * calls the interface that is older than providers. Prints who served, and the ciphertext's last
 * bytes with the tag.
 *
 * Not linked with libcrypto, so that its symbols are nowhere to be found but through the handle.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { BYTES = 1 << 20, GET_TAG = 0x10 };

static void *library;

static void *function(const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) exit(3);
    return found;
}

int main(void) {
    library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return 3;
    void *(*context_new)(void) = function("EVP_CIPHER_CTX_new");
    const void *(*aes_256_gcm)(void) = function("EVP_aes_256_gcm");
    int (*init)(void *, const void *, void *, const unsigned char *, const unsigned char *) =
        function("EVP_EncryptInit_ex");
    int (*update)(void *, unsigned char *, int *, const unsigned char *, int) =
        function("EVP_EncryptUpdate");
    int (*final)(void *, unsigned char *, int *) = function("EVP_EncryptFinal_ex");
    int (*control)(void *, int, int, void *) = function("EVP_CIPHER_CTX_ctrl");
    const void *(*cipher)(const void *) = function("EVP_CIPHER_CTX_get0_cipher");
    const void *(*provider)(const void *) = function("EVP_CIPHER_get0_provider");
    const char *(*name)(const void *) = function("OSSL_PROVIDER_get0_name");

    static unsigned char data[BYTES];
    unsigned char key[32] = {0}, iv[12] = {0}, tag[16];
    int written = 0;
    void *context = context_new();
    if (init(context, aes_256_gcm(), NULL, key, NULL) != 1) return 4;
    for (unsigned char message = 1; message <= 3; ++message) { /* one key, a new IV each */
        iv[0] = message;
        if (init(context, NULL, NULL, NULL, iv) != 1) return 4;
        if (update(context, data, &written, data, BYTES) != 1 || written != BYTES) return 4;
        if (final(context, data, &written) != 1) return 4;
        if (control(context, GET_TAG, 16, tag) != 1) return 4;
    }
    printf("%s ", name(provider(cipher(context))));
    for (int i = BYTES - 16; i < BYTES; ++i) printf("%02x", data[i]);
    for (int i = 0; i < 16; ++i) printf("%02x", tag[i]);
    printf("\n");
    return 0;
}
