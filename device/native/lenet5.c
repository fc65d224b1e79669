/* lenet5: classify images of digits with the int8 model that is compiled in.
 *
 *     lenet5 FILE...            one line per image: file, index, label, probability
 *     lenet5 --bench [IMAGES]   latency and throughput on this machine, as JSON
 *     lenet5 --verify GOLDEN    compare with stored outputs, bit for bit
 *
 * FILE is a binary PGM of the model's size (28 x 28), an uncompressed IDX file, or raw pixels;
 * ink is bright, background dark. GOLDEN holds "LENET5G1" and then, per image, its raw pixels and
 * the int8 outputs.
 *
 * Exit code: 0 done, 1 outputs differ from GOLDEN, 2 bad usage or bad input. */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "image_file.h"
#include "lenet5_int8.h"

enum {
    DONE = 0,
    CHECK_FAILED = 1,
    BAD_INPUT = 2,
    BENCH_CALLS = 20000,
    BENCH_LOOPS = 100, /* of BENCH_CALLS / BENCH_LOOPS calls each */
    SYNTHETIC_IMAGES = 64,
    IMAGE_BYTES = LENET5_INT8_IMAGE_BYTES,
    CLASSES = LENET5_INT8_CLASSES
};

static const size_t LARGEST_FILE_BYTES = (size_t)256 << 20;

static int complain(const char *path, const char *problem)
{
    fprintf(stderr, "%s: %s\n", path, problem);
    return BAD_INPUT;
}

/* Whole contents of a file, to be freed; NULL after a complaint. */
static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        complain(path, strerror(errno));
        return NULL;
    }
    size_t capacity = 65536;
    uint8_t *data = malloc(capacity);
    *size = 0;
    while (data != NULL) {
        *size += fread(data + *size, 1, capacity - *size, file);
        if (*size < capacity || capacity > LARGEST_FILE_BYTES) {
            break;
        }
        uint8_t *larger = realloc(data, capacity * 2);
        if (larger == NULL) {
            free(data);
        }
        data = larger;
        capacity *= 2;
    }
    const char *problem = data == NULL                  ? "not enough memory"
                          : ferror(file) != 0           ? strerror(errno)
                          : *size >= LARGEST_FILE_BYTES ? "file is larger than 256 MiB"
                                                        : NULL;
    fclose(file);
    if (problem != NULL) {
        complain(path, problem);
        free(data);
        return NULL;
    }
    return data;
}

static size_t largest(const int8_t output[CLASSES])
{
    size_t best = 0;
    for (size_t i = 1; i < CLASSES; i++) {
        if (output[i] > output[best]) {
            best = i;
        }
    }
    return best;
}

static int classify(const char *path)
{
    uint8_t scratch[LENET5_INT8_SCRATCH_BYTES];
    int8_t output[CLASSES];
    images found;
    size_t size;
    uint8_t *data = read_file(path, &size);
    if (data == NULL) {
        return BAD_INPUT;
    }
    const char *problem =
        find_images(data, size, LENET5_INT8_IMAGE_HEIGHT, LENET5_INT8_IMAGE_WIDTH, &found);
    if (problem != NULL) {
        free(data);
        return complain(path, problem);
    }
    for (size_t i = 0; i < found.count; i++) {
        lenet5_int8_run(found.pixels + i * IMAGE_BYTES, output, scratch);
        const size_t label = largest(output);
        const int steps = output[label] - LENET5_INT8_OUTPUT_ZERO_POINT;
        printf("%s\t%zu\t%zu\t%.4f\n", path, i, label,
               (double)steps * (double)LENET5_INT8_OUTPUT_SCALE);
    }
    free(data);
    return DONE;
}

static int verify(const char *path)
{
    enum { RECORD = IMAGE_BYTES + CLASSES };
    uint8_t scratch[LENET5_INT8_SCRATCH_BYTES];
    int8_t output[CLASSES];
    images records;
    size_t size;
    uint8_t *data = read_file(path, &size);
    if (data == NULL) {
        return BAD_INPUT;
    }
    const char *problem = find_golden(data, size, RECORD, &records);
    if (problem != NULL) {
        free(data);
        return complain(path, problem);
    }
    size_t different = 0;
    for (size_t i = 0; i < records.count; i++) {
        const uint8_t *record = records.pixels + i * RECORD;
        lenet5_int8_run(record, output, scratch);
        different += memcmp(output, record + IMAGE_BYTES, CLASSES) != 0;
    }
    free(data);
    printf("%zu of %zu outputs equal (%s kernels)\n", records.count - different, records.count,
           lenet5_int8_kernels());
    return different == 0 ? DONE : CHECK_FAILED;
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Time single calls on the images, in turn, and then loops of them. Loops are short and the median
 * of them counts: as in p50, a moment that another program had the processor is left out. */
static void time_calls(const uint8_t *pixels, size_t count)
{
    static double latency_us[BENCH_CALLS];
    double loop_us[BENCH_LOOPS];
    uint8_t scratch[LENET5_INT8_SCRATCH_BYTES];
    int8_t output[CLASSES];
    double sum_us = 0.0;
    for (size_t round = 0; round < 2; round++) { /* the first warms up */
        sum_us = 0.0;
        for (size_t i = 0; i < BENCH_CALLS; i++) {
            const double start = now_us();
            lenet5_int8_run(pixels + i % count * IMAGE_BYTES, output, scratch);
            latency_us[i] = now_us() - start;
            sum_us += latency_us[i];
        }
    }
    for (size_t loop = 0; loop < BENCH_LOOPS; loop++) {
        const double start = now_us();
        for (size_t i = 0; i < BENCH_CALLS / BENCH_LOOPS; i++) {
            lenet5_int8_run(pixels + i % count * IMAGE_BYTES, output, scratch);
        }
        loop_us[loop] = now_us() - start;
    }
    qsort(latency_us, BENCH_CALLS, sizeof latency_us[0], compare_doubles);
    qsort(loop_us, BENCH_LOOPS, sizeof loop_us[0], compare_doubles);
    printf("{\"kernels\": \"%s\", \"n\": %d, \"latency_us\": {\"min\": %.3f, \"p50\": %.3f, "
           "\"p90\": %.3f, \"p99\": %.3f, \"mean\": %.3f}, \"throughput_ips\": %.0f}\n",
           lenet5_int8_kernels(), BENCH_CALLS, latency_us[0], latency_us[BENCH_CALLS / 2],
           latency_us[BENCH_CALLS / 10 * 9], latency_us[BENCH_CALLS / 100 * 99],
           sum_us / BENCH_CALLS, BENCH_CALLS / BENCH_LOOPS / loop_us[BENCH_LOOPS / 2] * 1e6);
}

/* Without a file: noise, since the time does not depend on the pixels. */
static int bench(const char *path)
{
    images found;
    size_t size = (size_t)SYNTHETIC_IMAGES * IMAGE_BYTES;
    uint8_t *data = path == NULL ? malloc(size) : read_file(path, &size);
    if (data == NULL) {
        return BAD_INPUT;
    }
    if (path == NULL) {
        uint32_t state = 1;
        for (size_t i = 0; i < size; i++) {
            state = (uint32_t)((uint64_t)state * 1664525u + 1013904223u);
            data[i] = (uint8_t)(state >> 24);
        }
    }
    const char *problem =
        find_images(data, size, LENET5_INT8_IMAGE_HEIGHT, LENET5_INT8_IMAGE_WIDTH, &found);
    if (problem == NULL && found.count == 0) {
        problem = "no images in the file";
    }
    if (problem == NULL) {
        time_calls(found.pixels, found.count);
    }
    free(data);
    return problem == NULL ? DONE : complain(path, problem);
}

static int usage(void)
{
    fprintf(stderr, "usage: lenet5 FILE... | lenet5 --bench [IMAGES] | lenet5 --verify GOLDEN\n");
    return BAD_INPUT;
}

int main(int argc, char **argv)
{
    int code = DONE;
    if (argc < 2) {
        return usage();
    }
    if (strcmp(argv[1], "--bench") == 0) {
        code = argc <= 3 ? bench(argc == 3 ? argv[2] : NULL) : usage();
    } else if (strcmp(argv[1], "--verify") == 0) {
        code = argc == 3 ? verify(argv[2]) : usage();
    } else if (argv[1][0] == '-') {
        return usage();
    } else {
        for (int i = 1; i < argc; i++) {
            const int result = classify(argv[i]);
            code = result > code ? result : code;
        }
    }
    if (fflush(stdout) != 0) {
        return complain("standard output", strerror(errno));
    }
    return code;
}
