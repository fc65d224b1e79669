/* Image files of the lenet5 command: binary PGM, IDX as MNIST ships it, or raw pixels. */
#ifndef IMAGE_FILE_H
#define IMAGE_FILE_H

#include <stddef.h>
#include <stdint.h>

/* Images inside a file's bytes. */
typedef struct {
    const uint8_t *pixels; /* count * height * width bytes, 0 (background) to 255 (ink) */
    size_t count;
} images;

/* Find the images of height x width pixels in the contents of a file. The kind of file is told by
 * its first bytes; one without a known signature is raw when its size is a multiple of an image.
 *
 * Returns NULL, or one line that says what is wrong. Reads nothing outside data[0..size). */
const char *find_images(const uint8_t *data, size_t size, size_t height, size_t width,
                        images *found);

#endif
