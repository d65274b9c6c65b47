// Fibers: stacks of their own between which one operating-system thread changes by hand.
#pragma once

#include <cstddef>
#include <vector>

#if !defined(__x86_64__) && !defined(__aarch64__)
#define COUPLET_UCONTEXT 1
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define COUPLET_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define COUPLET_ASAN 1
#endif
#endif

namespace couplet {

// A suspended or running stack. The one of the operating-system thread itself has no memory of its own.
struct Fiber {
    void* top_saved = nullptr;         // stack pointer while suspended
    unsigned char* bottom = nullptr;   // lowest usable byte
    size_t size = 0;                   // usable bytes
    void* fake_stack = nullptr;        // AddressSanitizer's, while suspended
#ifdef COUPLET_UCONTEXT
    ucontext_t context;
#endif
};

// Makes `fiber` start in `entry` (which never returns) the next time it is changed to.
void fiber_prepare(Fiber& fiber, void (*entry)());
// Suspends `from` and continues `to`. With `last`, `from` is never continued.
void fiber_change(Fiber& from, Fiber& to, bool last);
// To be called first in `entry`, with the fiber that was left.
void fiber_arrived(Fiber& self, Fiber& left);

// Stacks, each with an inaccessible page below, kept until the pool goes.
class Stacks {
public:
    ~Stacks();
    Fiber* take();
    void give(Fiber* fiber) { free_.push_back(fiber); }
    // Every stack is free again: what a launch that failed had suspended is forgotten.
    void give_all() { free_ = all_; }

private:
    std::vector<Fiber*> all_, free_;
};

}  // namespace couplet
