/* libFuzzer target for the parsers of the lenet5 command:
 *
 *     clang -g -fsanitize=fuzzer,address,undefined -Idevice/native tests/native/fuzz_image_file.c \
 *         device/native/image_file.c -o fuzz && ./fuzz -max_len=4096 -max_total_time=60
 *
 * Images of 3 x 4 pixels, so that short inputs reach every branch. */
#include "image_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { HEIGHT = 3, WIDTH = 4 };
    static volatile unsigned sum;
    images found = {0, 0};
    if (find_images(data, size, HEIGHT, WIDTH, &found) == NULL) {
        for (size_t i = 0; i < found.count * HEIGHT * WIDTH; i++) {
            sum += found.pixels[i]; /* the sanitizer checks that every promised pixel is there */
        }
    }
    return 0;
}
