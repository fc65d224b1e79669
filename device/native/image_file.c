#include "image_file.h"

#include <string.h>

typedef struct {
    const uint8_t *next;
    const uint8_t *end;
} cursor;

static int is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f';
}

/* White space and comments between the numbers of a PGM header. */
static void skip_space(cursor *at)
{
    while (at->next < at->end) {
        if (*at->next == '#') {
            while (at->next < at->end && *at->next != '\n') {
                at->next++;
            }
        } else if (is_space(*at->next)) {
            at->next++;
        } else {
            return;
        }
    }
}

/* A decimal number of at most 5 digits; -1 if there is none. */
static long read_number(cursor *at)
{
    long value = 0;
    int digits = 0;
    skip_space(at);
    while (at->next < at->end && *at->next >= '0' && *at->next <= '9') {
        if (++digits > 5) {
            return -1;
        }
        value = value * 10 + (*at->next++ - '0');
    }
    return digits > 0 ? value : -1;
}

/* Netpbm's PGM specification: "P5", width, height, maximum, one white space, the raster. */
static const char *find_pgm(const uint8_t *data, size_t size, size_t height, size_t width,
                            images *found)
{
    cursor at = {data + 2, data + size};
    const long file_width = read_number(&at);
    const long file_height = read_number(&at);
    const long maximum = read_number(&at);
    if (file_width < 0 || file_height < 0 || maximum < 0) {
        return "damaged PGM header (expected P5, width, height, 255)";
    }
    if ((size_t)file_width != width || (size_t)file_height != height) {
        return "PGM image has the wrong size (scale it to the model's input first)";
    }
    if (maximum != 255) {
        return "PGM maximum is not 255 (convert it to 8 bits)";
    }
    if (at.next == at.end || !is_space(*at.next)) {
        return "damaged PGM header (no white space before the pixels)";
    }
    at.next++;
    if ((size_t)(at.end - at.next) != height * width) {
        return "PGM pixels are cut short or followed by more bytes (one image a file)";
    }
    found->pixels = at.next;
    found->count = 1;
    return NULL;
}

static size_t big_endian(const uint8_t *four)
{
    return (size_t)four[0] << 24 | (size_t)four[1] << 16 | (size_t)four[2] << 8 | four[3];
}

/* IDX of unsigned bytes with 3 dimensions: 00 00 08 03, count, height, width, pixels. */
static const char *find_idx(const uint8_t *data, size_t size, size_t height, size_t width,
                            images *found)
{
    if (size < 16) {
        return "IDX header is cut short";
    }
    if (big_endian(data + 8) != height || big_endian(data + 12) != width) {
        return "IDX images have the wrong size for this model";
    }
    found->count = big_endian(data + 4);
    if ((size - 16) % (height * width) != 0 || (size - 16) / (height * width) != found->count) {
        return "IDX file's length does not match its image count (download it again)";
    }
    found->pixels = data + 16;
    return NULL;
}

const char *find_images(const uint8_t *data, size_t size, size_t height, size_t width,
                        images *found)
{
    static const uint8_t idx_magic[4] = {0, 0, 8, 3};
    const size_t image = height * width;
    /* A raw image may begin like anything, so its exact size goes first. */
    if (size == image) {
        found->pixels = data;
        found->count = 1;
        return NULL;
    }
    if (size >= 2 && data[0] == 'P' && data[1] == '5') {
        return find_pgm(data, size, height, width, found);
    }
    if (size >= 4 && memcmp(data, idx_magic, sizeof idx_magic) == 0) {
        return find_idx(data, size, height, width, found);
    }
    if (size >= 2 && data[0] == 0x1f && data[1] == 0x8b) {
        return "file is gzip-compressed (gunzip it first)";
    }
    if (size == 0) {
        return "file is empty";
    }
    if (size % image != 0) {
        return "neither PGM (P5), IDX nor whole raw images";
    }
    found->pixels = data;
    found->count = size / image;
    return NULL;
}

const char *find_golden(const uint8_t *data, size_t size, size_t record_bytes, images *found)
{
    static const char magic[8] = {'L', 'E', 'N', 'E', 'T', '5', 'G', '1'};
    if (size <= sizeof magic || memcmp(data, magic, sizeof magic) != 0 ||
        (size - sizeof magic) % record_bytes != 0) {
        return "not a golden file of this model (LENET5G1, then whole records)";
    }
    found->pixels = data + sizeof magic;
    found->count = (size - sizeof magic) / record_bytes;
    return NULL;
}
