/* A plugin for qemu 6 and later that counts instructions: `qemu-arm -plugin FILE.so COMMAND` prints
 * "instructions: N" on stderr at the end, and "so far: N" whenever a program for AArch64 calls
 * getppid. The declarations are those of qemu-plugin.h. */
#include <stddef.h>
#include <stdint.h>

struct qemu_plugin_tb;
enum { ADD_U64 = 0, GETPPID = 173 };
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
                                           void (*call)(uint64_t id, struct qemu_plugin_tb *block));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int operation,
                                              void *counter, uint64_t add);
void qemu_plugin_register_vcpu_syscall_cb(
    uint64_t id, void (*call)(uint64_t id, unsigned cpu, int64_t number, uint64_t, uint64_t,
                              uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_atexit_cb(uint64_t id, void (*call)(uint64_t id, void *data), void *data);
int dprintf(int file, const char *format, ...); /* qemu's own C library has it */

int qemu_plugin_version = 1;
static uint64_t instructions;

static void translated(uint64_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &instructions,
                                             qemu_plugin_tb_n_insns(block));
}

static void called(uint64_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == GETPPID)
        dprintf(2, "so far: %llu\n", (unsigned long long)instructions);
}

static void at_exit(uint64_t id, void *data)
{
    (void)id;
    (void)data;
    dprintf(2, "instructions: %llu\n", (unsigned long long)instructions);
}

int qemu_plugin_install(uint64_t id, const void *info, int count, char **arguments)
{
    (void)info;
    (void)count;
    (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
