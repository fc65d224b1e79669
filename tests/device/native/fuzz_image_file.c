/* libFuzzer target for the parsers of the lenet5 command; `make fuzz` builds and runs it.
 *
 * Images of 3 x 4 pixels and records of 12 + 2 bytes, so that short inputs reach every branch. */
#include "image_file.h"

enum { HEIGHT = 3, WIDTH = 4, IMAGE = HEIGHT * WIDTH, RECORD = IMAGE + 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The sanitizer checks that every promised byte is there. */
static void read_all(const images *found, size_t item_bytes)
{
    static volatile uint8_t last;
    for (size_t i = 0; i < found->count * item_bytes; i++) {
        last = found->pixels[i];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    images found = {0, 0};
    if (find_images(data, size, HEIGHT, WIDTH, &found) == NULL) {
        read_all(&found, IMAGE);
    }
    if (find_golden(data, size, RECORD, &found) == NULL) {
        read_all(&found, RECORD);
    }
    return 0;
}
