// A libcuda.so.1 that copies as NVIDIA's does under confidential computing: it opens libcrypto for
// itself alone, and seals each MiB with AES-256-GCM on the calling thread.
//
// STUB_CUDA=unsealed: does not ask libcrypto. =broken: gives back other bytes. =error: an error.
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE (1 << 20)

static int is(const char* value) {
  const char* set = getenv("STUB_CUDA");
  return set != NULL && strcmp(set, value) == 0;
}

static void seal(const uint8_t* data, size_t nbytes) {
  static const uint8_t key[32], iv[12];
  static uint8_t sealed[MESSAGE];
  void* crypto = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
  if (crypto == NULL) abort();
  void* (*make)(void) = (void* (*)(void))dlsym(crypto, "EVP_CIPHER_CTX_new");
  void* (*cipher)(void) = (void* (*)(void))dlsym(crypto, "EVP_aes_256_gcm");
  int (*init)(void*, void*, void*, const uint8_t*, const uint8_t*) =
      (int (*)(void*, void*, void*, const uint8_t*, const uint8_t*))dlsym(crypto,
                                                                         "EVP_EncryptInit_ex");
  int (*update)(void*, uint8_t*, int*, const uint8_t*, int) =
      (int (*)(void*, uint8_t*, int*, const uint8_t*, int))dlsym(crypto, "EVP_EncryptUpdate");
  void (*discard)(void*) = (void (*)(void*))dlsym(crypto, "EVP_CIPHER_CTX_free");
  void* context = make();
  for (size_t at = 0; at < nbytes; at += MESSAGE) {
    int written = 0;
    const int length = (int)(nbytes - at < MESSAGE ? nbytes - at : MESSAGE);
    if (!init(context, cipher(), NULL, key, iv)) abort();
    if (!update(context, sealed, &written, data + at, length)) abort();
  }
  discard(context);
}

int cuInit(unsigned flags) { return flags == 0 && is("error") ? 999 : 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) {
  static int one;
  *context = &one;
  return device;
}
int cuCtxSetCurrent(void* context) { return context == NULL; }
int cuMemAlloc_v2(uint64_t* memory, size_t nbytes) {
  *memory = (uint64_t)(uintptr_t)malloc(nbytes);
  return 0;
}
int cuMemFree_v2(uint64_t memory) { return free((void*)(uintptr_t)memory), 0; }
int cuMemcpyHtoD_v2(uint64_t memory, const void* from, size_t nbytes) {
  if (!is("unsealed")) seal(from, nbytes);
  memcpy((void*)(uintptr_t)memory, from, nbytes);
  return 0;
}
int cuMemcpyDtoH_v2(void* to, uint64_t memory, size_t nbytes) {
  if (!is("unsealed")) seal((const void*)(uintptr_t)memory, nbytes);
  memcpy(to, (const void*)(uintptr_t)memory, nbytes);
  if (is("broken")) *(uint8_t*)to ^= 1;
  return 0;
}
int cuMemHostRegister_v2(void* memory, size_t nbytes, unsigned flags) {
  return memory == NULL || nbytes == 0 || flags != 0 ? 1 : 801;
}
int cuMemHostUnregister(void* memory) { return memory == NULL; }
