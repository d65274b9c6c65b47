#include "fiber.h"

#include <cstdint>
#include <cstring>
#include <new>

#include <sys/mman.h>
#include <unistd.h>

#ifdef COUPLET_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// couplet_change(&saved, next): pushes the registers that a call must preserve, saves the stack pointer, takes the other stack and pops.
#if defined(__x86_64__)
extern "C" void couplet_change(void** saved, void* next) __asm__("couplet_change");
__asm__(R"(
    .text
    .p2align 4
couplet_change:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    retq
)");
#elif defined(__aarch64__)
extern "C" void couplet_change(void** saved, void* next) __asm__("couplet_change");
__asm__(R"(
    .text
    .p2align 4
couplet_change:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
#endif

namespace couplet {

void fiber_prepare(Fiber& fiber, void (*entry)()) {
    unsigned char* top = fiber.bottom + fiber.size;  // a page boundary, so aligned to 16
#if defined(__x86_64__)
    // Above the six registers lies the address that the change returns to; above that, where a caller's would be, zero.
    void** words = reinterpret_cast<void**>(top) - 8;
    std::memset(words, 0, 8 * sizeof(void*));
    words[6] = reinterpret_cast<void*>(entry);
    fiber.top_saved = words;
#elif defined(__aarch64__)
    void** words = reinterpret_cast<void**>(top) - 20;
    std::memset(words, 0, 20 * sizeof(void*));
    words[11] = reinterpret_cast<void*>(entry);  // x30
    fiber.top_saved = words;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.bottom;
    fiber.context.uc_stack.ss_size = fiber.size;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
    (void)top;
#endif
    fiber.fake_stack = nullptr;
#ifdef COUPLET_ASAN
    __asan_unpoison_memory_region(fiber.bottom, fiber.size);  // frames that were abandoned here left their marks
#endif
}

void fiber_change(Fiber& from, Fiber& to, [[maybe_unused]] bool last) {
#ifdef COUPLET_ASAN
    __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.bottom, to.size);
#endif
#ifdef COUPLET_UCONTEXT
    swapcontext(&from.context, &to.context);
#else
    couplet_change(&from.top_saved, to.top_saved);
#endif
#ifdef COUPLET_ASAN
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void fiber_arrived([[maybe_unused]] Fiber& self, [[maybe_unused]] Fiber& left) {
#ifdef COUPLET_ASAN
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(self.fake_stack, &bottom, &size);
    if (left.bottom == nullptr) {  // the operating-system thread's own stack: its bounds are known only from here
        left.bottom = static_cast<unsigned char*>(const_cast<void*>(bottom));
        left.size = size;
    }
#endif
}

// Frames are larger under AddressSanitizer. Pages that are never touched cost nothing.
static constexpr size_t STACK = 256 * 1024;

Fiber* Stacks::take() {
    if (free_.empty()) {
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        void* memory = mmap(nullptr, STACK + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        mprotect(memory, page, PROT_NONE);
        Fiber* fiber = new Fiber;
        fiber->bottom = static_cast<unsigned char*>(memory) + page;
        fiber->size = STACK;
        all_.push_back(fiber);
        return fiber;
    }
    Fiber* fiber = free_.back();
    free_.pop_back();
    return fiber;
}

Stacks::~Stacks() {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    for (Fiber* fiber : all_) {
        munmap(fiber->bottom - page, STACK + page);
        delete fiber;
    }
}

}  // namespace couplet
