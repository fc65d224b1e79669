"""Keep this process from AMX, the matrix unit of some x86 processors, to see what it costs.

ai-edge-litert's XNNPACK takes AMX kernels for int8 where the processor has them, though for a model
as small as this one they can be the slower ones. It offers no choice, but Linux grants AMX only to
a process that asks, and XNNPACK takes other kernels when it is refused.

Source: Linux, Documentation/arch/x86/xstate.rst ("Using dynamically enabled XSTATE features") and
Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
AUDIT_ARCH_X86_64 = 0xC000003E
SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM = 158, 0x1023  # on x86-64
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # of a 32-bit word, with a constant, a constant
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data

# struct sock_filter: operation, jump if true, jump if false, constant.
FILTER = (
    (LOAD, 0, 0, ARCHITECTURE),
    (JUMP_IF_EQUAL, 0, 5, AUDIT_ARCH_X86_64),
    (LOAD, 0, 0, NUMBER),
    (JUMP_IF_EQUAL, 0, 3, SYS_ARCH_PRCTL),
    (LOAD, 0, 0, FIRST_ARGUMENT),
    (JUMP_IF_EQUAL, 0, 1, ARCH_REQ_XCOMP_PERM),
    (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM),
    (RETURN, 0, 0, SECCOMP_RET_ALLOW),
)


def deny() -> None:
    """Have Linux refuse AMX to this process and those that it starts, from now on and for good.

    Raises:
        OSError: Linux does not take the filter.
    """
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in FILTER)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(FILTER), ctypes.addressof(kept))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = libc.prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    address = ctypes.create_string_buffer(program, len(program))
    # Without the right to gain rights, a process may filter its own calls.
    for option, first, second in (
        (PR_SET_NO_NEW_PRIVS, 1, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(address)),
    ):
        if prctl(option, first, second, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
