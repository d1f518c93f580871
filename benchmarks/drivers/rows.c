/* Runs code that was made of a network on rows from a file, and times it from inside; benchmarks/c_drivers.py asks it.
 *
 *   program ROWS IN OUT MODEL [LIBRARY]
 *
 * ROWS is a file of float32 rows of IN numbers. Each line of the standard input is a request:
 *   answers            OUT float32 numbers for each row
 *   time CALLS CHUNK   seconds per call of each CHUNK calls, and then the processor time per call, as doubles
 *   stack              the bytes of the stack that a call takes, as a double
 * With -DINFER=function that function is called, else contender_infer, which contender_open prepares.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef INFER
void INFER(const float *x, float *y);
#define contender_infer INFER
#define contender_open(model, library, in, out) 0
#else
int contender_open(const char *model, const char *library, size_t in, size_t out);
void contender_infer(const float *x, float *y);
#endif

#define STACK (1 << 20)
#define WARM_UP 0.003

static float *rows, *answers;
static size_t count, in, out, next;

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The next row, of all in turn. */
static void call(void)
{
    contender_infer(rows + next * in, answers + next * out);
    next = next + 1 == count ? 0 : next + 1;
}

static void write_time(size_t calls, size_t chunk)
{
    const size_t chunks = (calls + chunk - 1) / chunk;
    double *times = malloc((chunks + 1) * sizeof *times);
    const double warm = seconds(CLOCK_MONOTONIC) + WARM_UP;
    do {
        call();
    } while (seconds(CLOCK_MONOTONIC) < warm);
    const double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t i = 0; i < chunks; i++) {
        const double start = seconds(CLOCK_MONOTONIC);
        for (size_t j = 0; j < chunk; j++) {
            call();
        }
        times[i] = (seconds(CLOCK_MONOTONIC) - start) / (double)chunk;
    }
    times[chunks] = (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (double)(chunks * chunk);
    fwrite(times, sizeof *times, chunks + 1, stdout);
    free(times);
}

static void *one_call(void *counts)
{
    if (counts != NULL) {
        call();
    }
    return NULL;
}

/* The bytes of a new stack that a thread touches, from its far end. */
static double touched(void *counts)
{
    unsigned char *memory = aligned_alloc(4096, STACK);
    pthread_attr_t attributes;
    pthread_t thread;
    size_t free_bytes = 0;
    memset(memory, 0xa5, STACK);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, memory, STACK);
    if (pthread_create(&thread, &attributes, one_call, counts) != 0) {
        exit(3);
    }
    pthread_join(thread, NULL);
    while (free_bytes < STACK && memory[free_bytes] == 0xa5) {
        free_bytes++;
    }
    free(memory);
    return (double)(STACK - free_bytes);
}

static void write_stack(void)
{
    call(); /* what is resolved at the first call is resolved */
    const double bytes = touched(rows) - touched(NULL);
    fwrite(&bytes, sizeof bytes, 1, stdout);
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "expected ROWS IN OUT MODEL [LIBRARY]\n");
        return 2;
    }
    in = strtoul(argv[2], NULL, 10);
    out = strtoul(argv[3], NULL, 10);
    FILE *file = fopen(argv[1], "rb");
    if (file == NULL || in == 0 || out == 0) {
        fprintf(stderr, "%s: cannot be read as rows of %zu numbers\n", argv[1], in);
        return 2;
    }
    fseek(file, 0, SEEK_END);
    count = (size_t)ftell(file) / (in * sizeof(float));
    rewind(file);
    rows = malloc(count * in * sizeof(float));
    answers = malloc(count * out * sizeof(float));
    if (count == 0 || fread(rows, sizeof(float), count * in, file) != count * in) {
        return 2;
    }
    fclose(file);
    if (contender_open(argv[4], argc > 5 ? argv[5] : "", in, out) != 0) {
        return 3;
    }
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        size_t calls, chunk;
        if (sscanf(line, "time %zu %zu", &calls, &chunk) == 2) {
            write_time(calls, chunk);
        } else if (strcmp(line, "stack\n") == 0) {
            write_stack();
        } else {
            for (size_t row = 0; row < count; row++) {
                call();
            }
            fwrite(answers, sizeof(float), count * out, stdout);
        }
        fflush(stdout);
    }
    return 0;
}
