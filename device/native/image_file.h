/* Files that the lenet5 command reads: images (binary PGM, IDX as MNIST ships it, or raw pixels) and
 * golden outputs. Returned is NULL, or one line that says what is wrong; nothing outside
 * data[0..size) is read. */
#ifndef IMAGE_FILE_H
#define IMAGE_FILE_H

#include <stddef.h>
#include <stdint.h>

/* Images inside a file's bytes; in a golden file, records. */
typedef struct {
    const uint8_t *pixels; /* count of them, each 0 (background) to 255 (ink) */
    size_t count;
} images;

/* Find the images of height x width pixels in the contents of a file. The kind of file is told by
 * its first bytes; one without a known signature is raw when its size is a multiple of an image. */
const char *find_images(const uint8_t *data, size_t size, size_t height, size_t width,
                        images *found);

/* Find the records of a golden file: "LENET5G1", then per image its pixels and the outputs that it
 * must give, record_bytes together. */
const char *find_golden(const uint8_t *data, size_t size, size_t record_bytes, images *found);

#endif
