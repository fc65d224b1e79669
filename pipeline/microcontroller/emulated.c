/* A program for a bare Cortex-M in an emulator: compares the C model's outputs with a golden file,
 * which it reads through the debugger's interface ("semihosting"), and prints how many are equal. */
#include <stdint.h>

#include "lenet5_int8.h"

enum {
    SYS_OPEN = 1,
    SYS_WRITE0 = 4,
    SYS_READ = 6,
    SYS_EXIT_EXTENDED = 0x20,
    STOPPED_BY_APPLICATION = 0x20026,
    MAGIC_BYTES = 8
};

static uintptr_t debugger(uintptr_t operation, const void *parameters)
{
    register uintptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = parameters;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static _Noreturn void stop(uintptr_t exit_code)
{
    const uintptr_t parameters[] = {STOPPED_BY_APPLICATION, exit_code};
    for (;;) {
        debugger(SYS_EXIT_EXTENDED, parameters);
    }
}

/* Returns whether all bytes were there. */
static int read_bytes(uintptr_t file, void *bytes, uintptr_t count)
{
    const uintptr_t parameters[] = {file, (uintptr_t)bytes, count};
    return debugger(SYS_READ, parameters) == 0;
}

static void print_number(unsigned number)
{
    char text[11];
    char *digit = text + sizeof text - 1;
    *digit = '\0';
    do {
        *--digit = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    debugger(SYS_WRITE0, digit);
}

static _Noreturn void start(void)
{
    static uint8_t image[LENET5_INT8_IMAGE_BYTES], scratch[LENET5_INT8_SCRATCH_BYTES];
    static int8_t golden[LENET5_INT8_CLASSES], output[LENET5_INT8_CLASSES];
    static const char name[] = "golden.bin"; /* in the emulator's current folder */
    const uintptr_t parameters[] = {(uintptr_t)name, 1 /* rb */, sizeof name - 1};
    const uintptr_t file = debugger(SYS_OPEN, parameters);
    unsigned count = 0, equal = 0;
    if (file == UINTPTR_MAX || !read_bytes(file, image, MAGIC_BYTES)) {
        debugger(SYS_WRITE0, "golden.bin cannot be read\n");
        stop(2);
    }
    while (read_bytes(file, image, sizeof image) && read_bytes(file, golden, sizeof golden)) {
        unsigned same = 1;
        lenet5_int8_run(image, output, scratch);
        for (unsigned i = 0; i < LENET5_INT8_CLASSES; i++) {
            same &= output[i] == golden[i];
        }
        equal += same;
        count++;
    }
    print_number(equal);
    debugger(SYS_WRITE0, " of ");
    print_number(count);
    debugger(SYS_WRITE0, " outputs equal (");
    debugger(SYS_WRITE0, lenet5_int8_kernels());
    debugger(SYS_WRITE0, " kernels)\n");
    stop(equal != count);
}

/* After a reset the processor takes its stack and where to start from here. */
extern uint8_t end_of_stack[];
static const void *const vectors[] __attribute__((section(".vectors"), used)) = {end_of_stack, start};
