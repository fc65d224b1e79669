/* What a browser calls of the generated C; web/lenet5.js does it. Write the pixels to image(), call
 * run(), read the outputs, int8, from outputs(). pipeline/native.py compiles it to WebAssembly. */
#include "lenet5_int8.h"

#define EXPORT(name) __attribute__((export_name(#name))) name

static uint8_t pixels[LENET5_INT8_IMAGE_BYTES];
static int8_t answer[LENET5_INT8_CLASSES];
static uint8_t scratch[LENET5_INT8_SCRATCH_BYTES];

uint8_t *EXPORT(image)(void)
{
    return pixels;
}

int8_t *EXPORT(outputs)(void)
{
    return answer;
}

uint32_t EXPORT(classes)(void)
{
    return LENET5_INT8_CLASSES;
}

void EXPORT(run)(void)
{
    lenet5_int8_run(pixels, answer, scratch);
}
