/* ONNX Runtime's C interface on one thread, on arrays that are wrapped once.
 *
 * OrtApi is a struct of functions that only ever grows at its end (onnxruntime_c_api.h), so that the places of the old
 * ones are the same in every release, and no header is needed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef void (*Function)(void);
enum {
    GET_ERROR_MESSAGE = 2,
    CREATE_ENV = 3,
    CREATE_SESSION = 7,
    RUN = 9,
    CREATE_SESSION_OPTIONS = 10,
    SET_INTRA_OP_NUM_THREADS = 24,
    SESSION_GET_INPUT_NAME = 36,
    SESSION_GET_OUTPUT_NAME = 37,
    CREATE_TENSOR_WITH_DATA = 49,
    CREATE_CPU_MEMORY_INFO = 69,
    GET_ALLOCATOR_WITH_DEFAULT_OPTIONS = 78
};
enum { VERSION = 1, WARNINGS = 2, ARENA_ALLOCATOR = 1, DEFAULT_MEMORY = 0, FLOAT = 1 };
typedef struct {
    const Function *(*get_api)(uint32_t version);
    const char *(*get_version_string)(void);
} Base;
typedef void *(*Run)(void *, void *, const char *const *, void *const *, size_t, const char *const *, size_t, void **);

static const Function *api;
static Run run;
static void *session, *input, *output;
static char *input_name, *output_name;
static float x_buffer[1 << 16], y_buffer[1 << 16];
static size_t in_size, out_size;

static int failed(void *status)
{
    if (status != NULL) {
        fprintf(stderr, "%s\n", ((const char *(*)(void *))api[GET_ERROR_MESSAGE])(status));
    }
    return status != NULL;
}

static int wrap(void *memory, float *data, size_t size, void **value)
{
    const int64_t shape[2] = {1, (int64_t)size};
    typedef void *(*Create)(void *, void *, size_t, const int64_t *, size_t, int, void **);
    return failed(((Create)api[CREATE_TENSOR_WITH_DATA])(memory, data, size * sizeof(float), shape, 2, FLOAT, value));
}

int contender_open(const char *model, const char *library, size_t in, size_t out)
{
    typedef Base *(*GetBase)(void);
    typedef void *(*WithInt)(void *, int);
    typedef void *(*Name)(void *, size_t, void *, char **);
    void *environment, *options, *memory, *allocator;
    void *handle = dlopen(library, RTLD_NOW);
    GetBase base = handle == NULL ? NULL : (GetBase)(Function)dlsym(handle, "OrtGetApiBase");
    if (base == NULL || in > 1 << 16 || out > 1 << 16) {
        fprintf(stderr, "%s\n", base == NULL ? dlerror() : "rows are too large for this benchmark");
        return 1;
    }
    api = base()->get_api(VERSION);
    in_size = in;
    out_size = out;
    if (failed(((void *(*)(int, const char *, void **))api[CREATE_ENV])(WARNINGS, "benchmark", &environment)) ||
        failed(((void *(*)(void **))api[CREATE_SESSION_OPTIONS])(&options)) ||
        failed(((WithInt)api[SET_INTRA_OP_NUM_THREADS])(options, 1)) ||
        failed(((void *(*)(void *, const char *, void *, void **))api[CREATE_SESSION])(environment, model, options, &session)) ||
        failed(((void *(*)(void **))api[GET_ALLOCATOR_WITH_DEFAULT_OPTIONS])(&allocator)) ||
        failed(((Name)api[SESSION_GET_INPUT_NAME])(session, 0, allocator, &input_name)) ||
        failed(((Name)api[SESSION_GET_OUTPUT_NAME])(session, 0, allocator, &output_name)) ||
        failed(((void *(*)(int, int, void **))api[CREATE_CPU_MEMORY_INFO])(ARENA_ALLOCATOR, DEFAULT_MEMORY, &memory)) ||
        wrap(memory, x_buffer, in, &input) || wrap(memory, y_buffer, out, &output)) {
        return 1;
    }
    run = (Run)api[RUN];
    return 0;
}

void contender_infer(const float *x, float *y)
{
    const char *const inputs[1] = {input_name}, *const outputs[1] = {output_name};
    memcpy(x_buffer, x, in_size * sizeof(float));
    run(session, NULL, inputs, &input, 1, outputs, 1, &output);
    memcpy(y, y_buffer, out_size * sizeof(float));
}
