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
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "image_file.h"
#include "lenet5_int8.h"

enum {
    DONE = 0,
    CHECK_FAILED = 1,
    BAD_INPUT = 2,
    BENCH_CALLS = 20000,
    BENCH_LOOPS = 100, /* of BENCH_CALLS / BENCH_LOOPS calls each */
    SYNTHETIC_IMAGES = 64,
    LARGEST_FILE_BYTES = 64 << 20,
    IMAGE_BYTES = LENET5_INT8_IMAGE_BYTES,
    CLASSES = LENET5_INT8_CLASSES
};

/* ---- Text and files: by system calls alone, so that static_linux.c can stand in for a libc ---- */

typedef struct {
    int file;
    int failed; /* a part could not be written */
    size_t used;
    char bytes[4096];
} text;

static text out = {.file = STDOUT_FILENO};

static void flush(text *t)
{
    size_t done = 0;
    while (done < t->used && !t->failed) {
        const ssize_t written = write(t->file, t->bytes + done, t->used - done);
        t->failed = written < 0;
        done += written > 0 ? (size_t)written : 0;
    }
    t->used = 0;
}

static void put(text *t, const char *string)
{
    for (; *string != '\0'; string++) {
        if (t->used == sizeof t->bytes) {
            flush(t);
        }
        t->bytes[t->used++] = *string;
    }
}

/* A name; what would steer a terminal (C0, DEL, and C1 as UTF-8 has it) as \xNN. */
static void put_name(text *t, const char *name)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *at = (const uint8_t *)name;
    for (uint8_t before = 0; *at != 0; before = *at++) {
        const int is_c1 = (*at == 0xc2 && at[1] < 0xa0) || (before == 0xc2 && *at < 0xa0);
        const int steers = *at < 0x20 || *at == 0x7f || is_c1;
        const char plain[] = {(char)*at, '\0'};
        const char escaped[] = {'\\', 'x', digits[*at >> 4], digits[*at & 15], '\0'};
        put(t, steers ? escaped : plain);
    }
}

static void put_digits(text *t, uint32_t value, size_t least)
{
    char digits[11];
    size_t at = sizeof digits - 1;
    digits[at] = '\0';
    while (value > 0 || sizeof digits - 1 - at < least) {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    }
    put(t, digits + at);
}

static void put_number(text *t, size_t value)
{
    put_digits(t, (uint32_t)value, 1);
}

/* "12.345" for three decimals. Rounded like printf: a half goes to the even digit. */
static void put_decimal(text *t, double value, size_t decimals)
{
    static const uint32_t units[] = {1, 10, 100, 1000, 10000};
    const double exact = value * units[decimals] < 4e9 ? value * units[decimals] : 4e9;
    uint32_t steps = (uint32_t)exact;
    const double rest = exact - steps;
    steps += rest > 0.5 || (rest >= 0.5 && steps % 2 == 1);
    put_digits(t, steps / units[decimals], 1);
    put(t, ".");
    put_digits(t, steps % units[decimals], decimals);
}

static int complain(const char *path, const char *problem)
{
    text error = {.file = STDERR_FILENO};
    put_name(&error, path);
    put(&error, ": ");
    put(&error, problem);
    put(&error, "\n");
    flush(&error);
    return BAD_INPUT;
}

/* Whole contents of a file, valid until the next one is read; NULL after a complaint. */
static const uint8_t *read_file(const char *path, size_t *size)
{
    static uint8_t contents[LARGEST_FILE_BYTES + 1];
    const int file = open(path, O_RDONLY);
    ssize_t got = file < 0 ? -1 : 1;
    *size = 0;
    while (got > 0 && *size < sizeof contents) {
        got = read(file, contents + *size, sizeof contents - *size);
        *size += got > 0 ? (size_t)got : 0;
    }
    const int error = errno;
    if (file >= 0) {
        close(file);
    }
    const char *problem = got >= 0            ? NULL
                          : error == ENOENT ? "no such file"
                          : error == EACCES ? "permission denied"
                          : error == EISDIR ? "is a folder"
                                            : "cannot be read";
    if (problem == NULL && *size > LARGEST_FILE_BYTES) {
        problem = "file is larger than 64 MiB";
    }
    if (problem != NULL) {
        complain(path, problem);
        return NULL;
    }
    return contents;
}

/* ---- What it does ---------------------------------------------------------------------------- */

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

/* The images of a file; DONE, or BAD_INPUT after a complaint. */
static int read_images(const char *path, images *found)
{
    size_t size;
    const uint8_t *data = read_file(path, &size);
    if (data == NULL) {
        return BAD_INPUT;
    }
    const char *problem =
        find_images(data, size, LENET5_INT8_IMAGE_HEIGHT, LENET5_INT8_IMAGE_WIDTH, found);
    return problem == NULL ? DONE : complain(path, problem);
}

static int classify(const char *path)
{
    uint8_t scratch[LENET5_INT8_SCRATCH_BYTES];
    int8_t output[CLASSES];
    images found;
    if (read_images(path, &found) != DONE) {
        return BAD_INPUT;
    }
    for (size_t i = 0; i < found.count; i++) {
        lenet5_int8_run(found.pixels + i * IMAGE_BYTES, output, scratch);
        const size_t label = largest(output);
        const int steps = output[label] - LENET5_INT8_OUTPUT_ZERO_POINT;
        put_name(&out, path);
        put(&out, "\t");
        put_number(&out, i);
        put(&out, "\t");
        put_number(&out, label);
        put(&out, "\t");
        put_decimal(&out, (double)steps * (double)LENET5_INT8_OUTPUT_SCALE, 4);
        put(&out, "\n");
    }
    return DONE;
}

static int verify(const char *path)
{
    enum { RECORD = IMAGE_BYTES + CLASSES };
    uint8_t scratch[LENET5_INT8_SCRATCH_BYTES];
    int8_t output[CLASSES];
    images records;
    size_t size;
    const uint8_t *data = read_file(path, &size);
    if (data == NULL) {
        return BAD_INPUT;
    }
    const char *problem = find_golden(data, size, RECORD, &records);
    if (problem != NULL) {
        return complain(path, problem);
    }
    size_t different = 0;
    for (size_t i = 0; i < records.count; i++) {
        const uint8_t *record = records.pixels + i * RECORD;
        lenet5_int8_run(record, output, scratch);
        different += memcmp(output, record + IMAGE_BYTES, CLASSES) != 0;
    }
    put_number(&out, records.count - different);
    put(&out, " of ");
    put_number(&out, records.count);
    put(&out, " outputs equal (");
    put(&out, lenet5_int8_kernels());
    put(&out, " kernels)\n");
    return different == 0 ? DONE : CHECK_FAILED;
}

/* Since the machine started. 32 bits of seconds are enough for that. */
static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)(int32_t)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* Shell sort, ascending. */
static void sort(double *values, size_t count)
{
    for (size_t gap = count / 2; gap > 0; gap /= 2) {
        for (size_t i = gap; i < count; i++) {
            const double value = values[i];
            size_t at = i;
            for (; at >= gap && values[at - gap] > value; at -= gap) {
                values[at] = values[at - gap];
            }
            values[at] = value;
        }
    }
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
    sort(latency_us, BENCH_CALLS);
    sort(loop_us, BENCH_LOOPS);
    const struct {
        const char *name;
        double value;
    } figures[] = {{"min", latency_us[0]},
                   {"p50", latency_us[BENCH_CALLS / 2]},
                   {"p90", latency_us[BENCH_CALLS / 10 * 9]},
                   {"p99", latency_us[BENCH_CALLS / 100 * 99]},
                   {"mean", sum_us / (double)BENCH_CALLS}};
    put(&out, "{\"kernels\": \"");
    put(&out, lenet5_int8_kernels());
    put(&out, "\", \"n\": ");
    put_number(&out, BENCH_CALLS);
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        put(&out, i == 0 ? ", \"latency_us\": {\"" : ", \"");
        put(&out, figures[i].name);
        put(&out, "\": ");
        put_decimal(&out, figures[i].value, 3);
    }
    put(&out, "}, \"throughput_ips\": ");
    put_number(&out, (size_t)(BENCH_CALLS / BENCH_LOOPS / loop_us[BENCH_LOOPS / 2] * 1e6));
    put(&out, "}\n");
}

/* Without a file: noise, since the time does not depend on the pixels. */
static int bench(const char *path)
{
    static uint8_t noise[SYNTHETIC_IMAGES * IMAGE_BYTES];
    images found = {noise, SYNTHETIC_IMAGES};
    if (path == NULL) {
        uint32_t state = 1;
        for (size_t i = 0; i < sizeof noise; i++) {
            state = (uint32_t)((uint64_t)state * 1664525u + 1013904223u);
            noise[i] = (uint8_t)(state >> 24);
        }
    } else if (read_images(path, &found) != DONE) {
        return BAD_INPUT;
    } else if (found.count == 0) {
        return complain(path, "no images in the file");
    }
    time_calls(found.pixels, found.count);
    return DONE;
}

static int usage(void)
{
    return complain("usage", "lenet5 FILE... | lenet5 --bench [IMAGES] | lenet5 --verify GOLDEN");
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
    flush(&out);
    return out.failed ? complain("standard output", "cannot be written") : code;
}
