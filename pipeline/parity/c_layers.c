/* The generated C, unchanged, with what each layer leaves in the scratch handed out: a program that
 * reads images from standard input, 784 bytes each, and writes the kernels' name in 16 bytes and
 * then, per image, the outputs of all layers as int8. pipeline/parity/c_layers.py runs it. */
#include "lenet5_int8.c"

#include <unistd.h>

static uint8_t image[LENET5_INT8_IMAGE_BYTES];
static uint8_t scratch[LENET5_INT8_SCRATCH_BYTES];
static int8_t output[LENET5_INT8_CLASSES];
static uint8_t result[2048 + 2 * LENET5_INT8_CLASSES];

static int get(uint8_t *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        const ssize_t got = read(0, to + done, bytes - done);
        if (got <= 0) {
            return 0;
        }
        done += (size_t)got;
    }
    return 1;
}

static void put(const uint8_t *from, size_t bytes)
{
    while (bytes > 0) {
        const ssize_t put = write(1, from, bytes);
        if (put <= 0) {
            return; /* the reader misses the rest */
        }
        from += put;
        bytes -= (size_t)put;
    }
}

static uint8_t *add(uint8_t *to, const uint8_t *stored, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = stored[i] ^ STORED_BIAS;
    }
    return to + count;
}

int main(int count, char **arguments)
{
    (void)count;
    (void)arguments;
    for (size_t i = 0; i < 15 && lenet5_int8_kernels()[i] != 0; i++) {
        result[i] = (uint8_t)lenet5_int8_kernels()[i];
    }
    put(result, 16);
    while (get(image, sizeof image)) {
        lenet5_int8_run(image, output, scratch);
        const activations *a = aligned(scratch);
        uint8_t *to = add(result, a->pooled1, 14 * 14 * 6);
        to = add(to, a->pooled2, 5 * 5 * 16);
        to = add(to, a->dense1, 120);
        to = add(to, a->dense2, 84);
        to = add(to, a->logits, CLASSES);
        memcpy(to, output, CLASSES);
        put(result, (size_t)(to - result) + CLASSES);
    }
    return 0;
}
