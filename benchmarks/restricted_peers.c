/* Answers a breakpoint that stands for `cpuid` as a CPU without AVX-512, VNNI, BF16 and AMX would:
   see restricted_peers.py. */

#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

/* Leaf 7: AVX-512 F, DQ, IFMA, PF, ER, CD, BW, VL; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; 4VNNIW,
   4FMAPS, VP2INTERSECT, AMX-BF16, FP16, AMX-TILE, AMX-INT8. Its second part: AVX-VNNI and BF16;
   AVX-VNNI-INT8 and AVX-NE-CONVERT. */
static const uint32_t EBX = 0xDC230000, ECX = 0x00005842, EDX = 0x03C0010C, EAX_1 = 0x30,
                      EDX_1 = 0x30;

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint32_t leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    (void)number, (void)info;
    __cpuid_count(leaf, part, a, b, c, d);
    if (leaf == 7 && part == 0) b &= ~EBX, c &= ~ECX, d &= ~EDX;
    if (leaf == 7 && part == 1) a &= ~EAX_1, d &= ~EDX_1;
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 1; /* the no-op after the breakpoint */
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGTRAP, &action, 0);
}
