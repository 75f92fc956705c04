/* A CUDA driver that runs nothing: memory is the host's, a kernel that is launched is only named, and whatever is read back is
 * zero. What is launched and read is told on standard error, so that both can be counted. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef uint64_t Pointer;
typedef void *Handle;

enum { SUCCESS = 0, NOT_FOUND = 500, HOST = 1 };

static Handle made(void) { return malloc(1); }

Result cuInit(unsigned flags) { return SUCCESS; }
Result cuDriverGetVersion(int *version) { *version = 12090; return SUCCESS; }
Result cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
Result cuDeviceGet(int *device, int at) { *device = 0; return SUCCESS; }
Result cuDeviceGetName(char *name, int most, int device) { strncpy(name, "none", most); return SUCCESS; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)80 << 30; return SUCCESS; }
Result cuDeviceCanAccessPeer(int *can, int one, int other) { *can = 0; return SUCCESS; }

/* Those of an H100, by their numbers in cuda.h. */
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break; /* threads of a block, in x, in y */
    case 4: *value = 64; break;                   /* in z */
    case 5: *value = 2147483647; break;           /* blocks in x */
    case 6: case 7: *value = 65535; break;        /* in y, in z */
    case 10: *value = 32; break;                  /* threads of a warp */
    case 16: *value = 132; break;                 /* multiprocessors */
    case 75: *value = 9; break;                   /* compute capability */
    case 76: *value = 0; break;
    case 97: *value = 232448; break;              /* shared memory of a block */
    default: *value = 1;
    }
    return SUCCESS;
}

Result cuDevicePrimaryCtxRetain(Handle *context, int device) { *context = made(); return SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return SUCCESS; }
Result cuCtxSetCurrent(Handle context) { return SUCCESS; }
Result cuCtxGetCurrent(Handle *context) { *context = made(); return SUCCESS; }
Result cuStreamCreate(Handle *stream, unsigned flags) { *stream = made(); return SUCCESS; }
Result cuStreamDestroy_v2(Handle stream) { return SUCCESS; }
Result cuStreamSynchronize(Handle stream) { return SUCCESS; }
Result cuStreamWaitEvent(Handle stream, Handle event, unsigned flags) { return SUCCESS; }
Result cuEventCreate(Handle *event, unsigned flags) { *event = made(); return SUCCESS; }
Result cuEventRecord(Handle event, Handle stream) { return SUCCESS; }
Result cuEventQuery(Handle event) { return SUCCESS; }
Result cuEventDestroy_v2(Handle event) { free(event); return SUCCESS; }
Result cuEventSynchronize(Handle event) { fputs("driver waits\n", stderr); return SUCCESS; }

Result cuMemAlloc_v2(Pointer *memory, size_t bytes) { *memory = (Pointer)calloc(1, bytes); return SUCCESS; }
Result cuMemAllocAsync(Pointer *memory, size_t bytes, Handle stream) { return cuMemAlloc_v2(memory, bytes); }
Result cuMemFree_v2(Pointer memory) { free((Handle)memory); return SUCCESS; }
Result cuMemFreeAsync(Pointer memory, Handle stream) { return cuMemFree_v2(memory); }
Result cuMemAllocHost_v2(Handle *memory, size_t bytes) { *memory = calloc(1, bytes); return SUCCESS; }
Result cuMemHostAlloc(Handle *memory, size_t bytes, unsigned flags) { return cuMemAllocHost_v2(memory, bytes); }
Result cuMemFreeHost(Handle memory) { free(memory); return SUCCESS; }

Result cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, Handle stream) {
    memcpy((Handle)to, from, bytes);
    return SUCCESS;
}

Result cuMemcpyDtoHAsync_v2(Handle to, Pointer from, size_t bytes, Handle stream) {
    fprintf(stderr, "driver reads %zu bytes\n", bytes);
    memset(to, 0, bytes);
    return SUCCESS;
}

/* CUDA_MEMCPY2D of cuda.h. */
struct Rows {
    size_t from_x, from_y;
    int from_kind;
    const void *from_host;
    Pointer from_device;
    Handle from_array;
    size_t from_pitch, to_x, to_y;
    int to_kind;
    Handle to_host;
    Pointer to_device;
    Handle to_array;
    size_t to_pitch, width, height;
};

Result cuMemcpy2DAsync_v2(const struct Rows *rows, Handle stream) {
    const char *from = rows->from_kind == HOST ? rows->from_host : (const char *)rows->from_device;
    char *to = rows->to_kind == HOST ? rows->to_host : (char *)rows->to_device;
    for (size_t at = 0; at < rows->height; at++) {
        char *row = to + at * rows->to_pitch;
        if (rows->to_kind == HOST) memset(row, 0, rows->width);
        else memcpy(row, from + at * rows->from_pitch, rows->width);
    }
    if (rows->to_kind == HOST) fprintf(stderr, "driver reads %zu bytes\n", rows->width * rows->height);
    return SUCCESS;
}

Result cuModuleLoadData(Handle *module, const void *image) { *module = made(); return SUCCESS; }
Result cuModuleUnload(Handle module) { free(module); return SUCCESS; }
Result cuModuleGetFunction(Handle *function, Handle module, const char *name) {
    *function = strdup(name);
    fprintf(stderr, "driver loads %s\n", name);
    return SUCCESS;
}
Result cuFuncSetAttribute(Handle function, int attribute, int value) { return SUCCESS; }
Result cuFuncGetAttribute(int *value, int attribute, Handle function) { *value = 0; return SUCCESS; }
Result cuTensorMapEncodeTiled(Handle map, int type, unsigned rank, Handle memory, const void *sizes, const void *strides,
                              const void *box, const void *steps, int interleave, int swizzle, int promotion, int fill) {
    return SUCCESS;
}
Result cuLaunchKernel(Handle function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                      unsigned threads_z, unsigned shared, Handle stream, Handle *parameters, Handle *more) {
    fprintf(stderr, "driver runs %s\n", (const char *)function);
    return SUCCESS;
}

Result cuGetErrorName(int error, const char **name) { *name = "none"; return SUCCESS; }
Result cuGetErrorString(int error, const char **text) { *text = "none"; return SUCCESS; }
Result cuGetProcAddress_v2(const char *name, Handle *function, int version, uint64_t flags, Handle status) { return NOT_FOUND; }
