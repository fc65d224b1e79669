/* What the lenet5 command needs of a C library, for Linux on x86-64, AArch64 and ARM: its start and
 * a few system calls. pipeline/native.py links this in place of a whole libc, which a cross
 * compiler would first have to compile for every kind of board, a minute each. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(SYS_clock_gettime32)
#define CLOCK_CALL SYS_clock_gettime32 /* the newer one with 64 bits is not in older kernels */
#else
#define CLOCK_CALL SYS_clock_gettime
#endif

/* The stack at the start, see start(). */
#if defined(__x86_64__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x29, #0\n mov x0, sp\n b start\n");
#elif defined(__arm__)
__asm__(".globl _start\n_start: mov fp, #0\n mov r0, sp\n b start\n");
#endif

static int last_error;
static const unsigned long *auxiliary; /* pairs of type and value, the last AT_NULL */

int *__errno_location(void)
{
    return &last_error;
}

static long system_call(long number, long a, long b, long c, long d)
{
#if defined(__x86_64__)
    long result = number;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long result __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(result) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
#elif defined(__arm__)
    register long r7 __asm__("r7") = number;
    register long result __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    __asm__ volatile("svc 0" : "+r"(result) : "r"(r7), "r"(r1), "r"(r2), "r"(r3) : "memory");
#endif
    if (result < 0) {
        last_error = (int)-result;
        return -1;
    }
    return result;
}

int open(const char *path, int flags, ...)
{
    return (int)system_call(SYS_openat, AT_FDCWD, (long)path, flags, 0);
}

ssize_t read(int file, void *bytes, size_t count)
{
    return system_call(SYS_read, file, (long)bytes, (long)count, 0);
}

ssize_t write(int file, const void *bytes, size_t count)
{
    return system_call(SYS_write, file, (long)bytes, (long)count, 0);
}

int close(int file)
{
    return (int)system_call(SYS_close, file, 0, 0, 0);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    long seconds_and_nanoseconds[2];
    const long result = system_call(CLOCK_CALL, clock, (long)seconds_and_nanoseconds, 0, 0);
    time->tv_sec = seconds_and_nanoseconds[0];
    time->tv_nsec = seconds_and_nanoseconds[1];
    return (int)result;
}

unsigned long getauxval(unsigned long type)
{
    const unsigned long *pair = auxiliary;
    while (pair[0] != AT_NULL && pair[0] != type) {
        pair += 2;
    }
    return pair[0] == type ? pair[1] : 0;
}

int strcmp(const char *a, const char *b)
{
    while (*a == *b && *a != '\0') {
        a++;
        b++;
    }
    return (unsigned char)*a - (unsigned char)*b;
}

int main(int argc, char **argv);
_Noreturn void start(long *stack);
extern void (*const __init_array_start[])(void), (*const __init_array_end[])(void);

/* stack: the number of arguments; the arguments and NULL; the environment and NULL; auxiliary. */
_Noreturn void start(long *stack)
{
    char **argv = (char **)(stack + 1);
    char **environment = argv + stack[0] + 1;
    while (*environment != NULL) {
        environment++;
    }
    auxiliary = (const unsigned long *)(environment + 1);
    for (void (*const *function)(void) = __init_array_start; function < __init_array_end; function++) {
        (*function)();
    }
    system_call(SYS_exit_group, main((int)stack[0], argv), 0, 0, 0);
    __builtin_unreachable();
}
