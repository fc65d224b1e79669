/* Classify a digit on a Raspberry Pi Pico and print what the model says, once a second. */
#include <stdio.h>
#include <string.h>

#include "lenet5_int8.h"
#include "pico/stdlib.h"
#include "pico/time.h"

/* 28 x 28 pixels, from paper to ink. Replace it with your own: light ink on black, as in MNIST. */
static const char shades[] = " .:-=+*#%@";
static const char digit[] =
    "                            "
    "                            "
    "                            "
    "                            "
    "                            "
    "                            "
    "                            "
    "      -#*+:.                "
    "      %@@@@@########*:      "
    "      :=-=*%@%@@@@%@@+      "
    "           .: ::::.%@=      "
    "                  -@#.      "
    "                 .%@-       "
    "                 +@%:       "
    "                :@@:        "
    "                +@#         "
    "                #@:         "
    "               =@*          "
    "              -@%:          "
    "             .%@*           "
    "             #@%.           "
    "            .@@-            "
    "           .%@=             "
    "           +@@:             "
    "          :@@@:             "
    "          =@@%.             "
    "          =@#.              "
    "                            ";

int main(void)
{
    static uint8_t image[LENET5_INT8_IMAGE_BYTES], scratch[LENET5_INT8_SCRATCH_BYTES];
    float probabilities[LENET5_INT8_CLASSES];
    stdio_init_all();
    for (size_t i = 0; i < LENET5_INT8_IMAGE_BYTES; i++) {
        image[i] = (uint8_t)((strchr(shades, digit[i]) - shades) * 255 / 9);
    }
    for (;;) {
        const uint64_t start_us = time_us_64();
        lenet5_int8_probabilities(image, probabilities, scratch);
        const uint64_t latency_us = time_us_64() - start_us;
        size_t label = 0;
        for (size_t i = 0; i < LENET5_INT8_CLASSES; i++) {
            label = probabilities[i] > probabilities[label] ? i : label;
            printf("%u: %.4f  ", (unsigned)i, (double)probabilities[i]);
        }
        printf("\nlabel %u, %u us (%s kernels)\n", (unsigned)label, (unsigned)latency_us,
               lenet5_int8_kernels());
        sleep_ms(1000);
    }
}
